//! Why a machine ended, in words for people, from what QEMU and the guest's console said.

/// Names the reason of QEMU's `SHUTDOWN` event, with the console's help where the event alone can't
/// tell a panic from a reboot.
pub(crate) fn reason_of_end(event: &str, console: &str) -> String {
    if let Some(panic) = kernel_panic(console) {
        return format!("the guest's kernel panicked: {panic}");
    }
    match event {
        "guest-shutdown" => agent_complaint(console).map_or_else(
            || "the guest powered off".to_owned(),
            |line| format!("the guest gave up: {line}"),
        ),
        "guest-reset" => "the guest rebooted; a sandbox does not start again by itself".to_owned(),
        "guest-panic" => "the guest's kernel panicked".to_owned(),
        "host-qmp-quit" | "host-signal" => "its machine was ended from outside".to_owned(),
        other => format!("its machine ended ({other})"),
    }
}

/// What the kernel said of its panic, the last one where there are several.
fn kernel_panic(console: &str) -> Option<&str> {
    const MARK: &str = "Kernel panic - not syncing: ";
    let line = console.lines().rev().find(|line| line.contains(MARK))?;
    line.split(MARK).nth(1).map(str::trim)
}

fn agent_complaint(console: &str) -> Option<&str> {
    console
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("sandbox-agent:"))
        .map(str::trim)
}

/// The console's last lines, for an error about a guest that did not come up.
pub(crate) fn console_tail(console: &str) -> String {
    const LINES: usize = 5;
    let lines: Vec<&str> = console
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_named_with_the_kernels_own_words() {
        let console =
            "[    9.1] Kernel panic - not syncing: sysrq triggered crash\r\n[    9.2] CPU: 0";
        assert_eq!(
            reason_of_end("guest-reset", console),
            "the guest's kernel panicked: sysrq triggered crash"
        );
    }

    #[test]
    fn power_off_reboot_and_a_kill_read_differently() {
        assert_eq!(reason_of_end("guest-shutdown", ""), "the guest powered off");
        assert!(reason_of_end("guest-reset", "").contains("rebooted"));
        assert!(reason_of_end("host-signal", "").contains("from outside"));
        assert!(
            reason_of_end("guest-shutdown", "x\nsandbox-agent: no disk\r\n").contains("no disk")
        );
    }
}
