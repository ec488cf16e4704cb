//! Where a clone's memory goes: its mappings, by what they are for (proc(5), `smaps`).

use std::collections::BTreeMap;

use anyhow::Context;

/// Sums of one kind of mapping, in KiB.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    pss: u64,
    private: u64,
}

/// The mean over these processes, in lines to print.
pub(crate) fn of(what: &str, pids: &[u32]) -> anyhow::Result<Vec<String>> {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    let mut largest = 0;
    for pid in pids {
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))
            .with_context(|| format!("reading the mappings of {pid}"))?;
        let mut own = BTreeMap::new();
        add(&smaps, &mut own);
        largest = largest.max(own.values().map(|sum| sum.private).sum());
        for (kind, own) in own {
            let sum = sums.entry(kind).or_default();
            sum.pss += own.pss;
            sum.private += own.private;
        }
    }
    let count = pids.len().max(1) as u64;
    let title = format!("Memory of {what}, mean of {count}, in MiB");
    let mut lines = vec![
        String::new(),
        format!("{title:<50} {:>9} {:>9}", "PSS", "private"),
    ];
    let mut all = Sum::default();
    for (kind, sum) in &sums {
        all = Sum {
            pss: all.pss + sum.pss,
            private: all.private + sum.private,
        };
        lines.push(line(kind, *sum, count));
    }
    lines.push(line("all", all, count));
    if pids.len() > 2 {
        let kind = "the one with the most of its own";
        let largest = largest as f64 / 1024.0;
        lines.push(format!("  {kind:<48} {:>9} {largest:>9.1}", ""));
    }
    Ok(lines)
}

fn line(kind: &str, sum: Sum, count: u64) -> String {
    let mib = |kib: u64| kib as f64 / 1024.0 / count as f64;
    let (pss, private) = (mib(sum.pss), mib(sum.private));
    format!("  {kind:<48} {pss:>9.1} {private:>9.1}")
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
