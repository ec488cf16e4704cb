//! Where a waiting clone's memory goes: its mappings, by what they are for (proc(5), `smaps`).

use std::collections::BTreeMap;

use anyhow::Context;

/// Sums of one kind of mapping, in KiB.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    pss: u64,
    private: u64,
}

/// Prints the mean over these processes.
pub(crate) fn print(pids: &[u32]) -> anyhow::Result<()> {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for pid in pids {
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))
            .with_context(|| format!("reading the mappings of {pid}"))?;
        add(&smaps, &mut sums);
    }
    let count = pids.len().max(1) as u64;
    println!(
        "\nMemory of a waiting clone, mean of {count}, in MiB{:>13} {:>9}",
        "PSS", "private"
    );
    let mut all = Sum::default();
    for (kind, sum) in &sums {
        all = Sum {
            pss: all.pss + sum.pss,
            private: all.private + sum.private,
        };
        line(kind, *sum, count);
    }
    line("all", all, count);
    Ok(())
}

fn line(kind: &str, sum: Sum, count: u64) {
    let mib = |kib: u64| kib as f64 / 1024.0 / count as f64;
    println!(
        "  {kind:<48} {:>9.1} {:>9.1}",
        mib(sum.pss),
        mib(sum.private)
    );
}

fn add(smaps: &str, sums: &mut BTreeMap<&'static str, Sum>) {
    let mut kind = "other";
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            let permissions = words.next().unwrap_or_default();
            kind = kind_of(permissions, words.nth(3).unwrap_or_default());
            continue;
        }
        let kib: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let sum = sums.entry(kind).or_default();
        match first {
            "Pss:" => sum.pss += kib,
            "Private_Clean:" | "Private_Dirty:" => sum.private += kib,
            _ => {}
        }
    }
}

fn kind_of(permissions: &str, path: &str) -> &'static str {
    if path.ends_with("/memory") {
        "guest RAM, pages of its own and shared ones"
    } else if path == "[heap]" {
        "QEMU's heap"
    } else if path.starts_with('/') {
        "QEMU's program and libraries"
    } else if permissions.contains('x') && path.is_empty() {
        "translated guest code"
    } else {
        "QEMU's other memory (stacks, tables, buffers)"
    }
}
