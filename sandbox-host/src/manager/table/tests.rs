use serde_json::json;

use super::*;
use crate::inventory::Use;

fn paused(id: SandboxId) -> Manifest {
    let emulator = json!({
        "machine_type": "pc-q35-7.2",
        "accelerator": "tcg",
        "qemu_version": "7.2.0",
    });
    Manifest {
        origin: Origin {
            image: sandbox_core::template::MINIMAL_TEMPLATE_ID,
            memory_image: "key".to_owned(),
            size: sandbox_core::size::MachineSize::default(),
        },
        order: 4,
        use_: Use::Paused {
            sandbox: id,
            generation: 1,
            quiesced: true,
            emulator: serde_json::from_value(emulator).unwrap(),
        },
    }
}

fn report(table: &Table) -> HostReport {
    table.report(HostId::from_uuid(Uuid::nil()), 1, Vec::new())
}

#[test]
fn trap_3_a_report_says_which_machines_have_an_order_at_work() {
    let table = Table::default();
    let id = SandboxId::from_uuid(Uuid::from_u128(1));
    table.insert_found(Uuid::from_u128(2), paused(id));
    let at_rest = report(&table);
    assert!(!at_rest.sandboxes[0].at_work);
    let order = HostOrder {
        id,
        generation: 1,
        order: 5,
    };
    let begun = table.begin(&order, CancellationToken::new()).unwrap();
    assert!(matches!(begun.present, Present::Paused(_)));
    let at_work = report(&table);
    assert_eq!(at_work.sandboxes[0].state, HostSandboxState::Paused);
    assert!(at_work.sandboxes[0].at_work);
    // Each is told from the other by its number, and whoever waits for news is woken.
    assert!(at_work.number() > at_rest.number());
    table.finish(id);
    let again = report(&table);
    assert!(!again.sandboxes[0].at_work);
    assert!(again.number() > at_work.number());
}

#[test]
fn an_order_that_is_refused_leaves_a_machine_at_rest() {
    let table = Table::default();
    let id = SandboxId::from_uuid(Uuid::from_u128(1));
    table.insert_found(Uuid::from_u128(2), paused(id));
    let before = report(&table);
    let order = HostOrder {
        id,
        generation: 1,
        order: 3,
    };
    let refused = table.begin(&order, CancellationToken::new());
    assert!(matches!(refused, Err(HostError::StaleOrder { .. })));
    assert_eq!(report(&table), before);
}
