//! The contract of disk backends as the first process of a VM, see `tests/vm_disk.rs`.

fn main() {
    sandbox_host::disk_contract();
}
