//! Temporary.
use sandbox_core::guest::Guest;
use sandbox_host::link::{client::GuestClient, protocol::Identity};
use std::time::{Duration, Instant};
async fn client() -> GuestClient {
    let (tx, rx) = tokio::sync::watch::channel(None);
    std::mem::forget(tx);
    let c = GuestClient::unix(std::env::var("AGENT_SOCKET").unwrap(), rx);
    c.wait_ready(Duration::from_secs(30)).await.unwrap();
    c.identify(Identity { hostname: "vm-test".into(), machine_id: [0xab; 16], entropy: vec![3; 64].into(), unix_time_us: 1_800_000_000_000_000, env: Default::default() }).await.unwrap();
    c
}
async fn with_guest(test: impl AsyncFnOnce(&dyn Guest)) {
    let c = client().await;
    test(&c).await;
    c.disconnect().await;
}
sandbox_host::guest_contract_tests!(with_guest);
#[tokio::test]
async fn aa_speed() {
    let t = Instant::now();
    let c = client().await;
    println!("ready+identify {:?}", t.elapsed());
    for _ in 0..3 { let t = Instant::now(); c.ping().await.unwrap(); println!("ping {:?}", t.elapsed()); }
    for p in ["true"; 6] {
        let t = Instant::now();
        let o = sandbox_host::testkit::guest_contract::exec(&c, sandbox_core::process::ProcessSpec::new(sandbox_core::process::Command::Program{program:p.into(),args:vec![]})).await;
        println!("exec {p} {:?} guest {:?}", t.elapsed(), o.duration);
    }
    let o = sandbox_host::testkit::guest_contract::exec(&c, sandbox_core::process::ProcessSpec::shell("hostname; cat /etc/machine-id /etc/hosts /proc/mounts /proc/1/status /proc/self/cgroup /proc/self/oom_score_adj; cat /sys/fs/cgroup/sandbox/memory.max /sys/fs/cgroup/sandbox/pids.max; date; ls -la / /dev; ps; ulimit -n; cat /proc/1/smaps_rollup; ip a")).await;
    println!("{}{}", String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr));
    let data = vec![0x5a; 64 << 20];
    let t = Instant::now();
    sandbox_host::testkit::guest_contract::write_file(&c, "/tmp/big", &data).await.unwrap();
    println!("write 64 MiB {:?}", t.elapsed());
    let t = Instant::now();
    let r = sandbox_host::testkit::guest_contract::read_file(&c, "/tmp/big").await.unwrap();
    println!("read 64 MiB {:?} {}", t.elapsed(), r.0.len());
    for i in 0..5 { c.disconnect().await; let t = Instant::now(); c.ping().await.unwrap(); println!("reconnect {i} {:?}", t.elapsed()); }
    c.disconnect().await;
}
use sandbox_core::process::ProcessSpec;
#[tokio::test]
async fn zz_bombs() {
    let c = client().await;
    let s = c.start_process(ProcessSpec::shell("b() { b | b & }; b; sleep 100"), Duration::ZERO).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let t = Instant::now(); c.ping().await.unwrap(); println!("ping in bomb {:?}", t.elapsed());
    let t = Instant::now(); let r = c.start_process(ProcessSpec::shell("echo hi"), Duration::from_secs(3)).await; println!("exec in bomb {:?} {:?}", t.elapsed(), r);
    let t = Instant::now(); let r = c.stat("/etc/passwd").await; println!("stat in bomb {:?} {:?}", t.elapsed(), r.is_ok());
    c.signal(s.pid, 9, true).await.ok();
    for _ in 0..20 {
        let r = c.read_file("/sys/fs/cgroup/sandbox/pids.current", 0, 100).await;
        println!("pids {r:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        if let Ok(f) = r && let sandbox_core::file::FileData::Bytes(b) = f.data && b.len() < 3 { break; }
    }
}
#[tokio::test]
async fn zy_memory() {
    let c = client().await;
    let o = sandbox_host::testkit::guest_contract::exec(&c, ProcessSpec::shell("x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")).await;
    println!("hog {:?}", o.status);
    let o = sandbox_host::testkit::guest_contract::exec(&c, ProcessSpec::shell("head -c 600m /dev/zero > /dev/shm/x; echo $?; rm /dev/shm/x")).await;
    println!("shm {:?} {:?}", o.status, o.stdout);
    c.ping().await.unwrap();
}
#[tokio::test]
async fn zzz_poweroff() {
    let c = client().await;
    let t = Instant::now();
    println!("{:?} {:?}", c.start_process(ProcessSpec::shell("poweroff"), Duration::from_secs(10)).await, t.elapsed());
}
