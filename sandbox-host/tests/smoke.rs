use std::time::{Duration, Instant};
use sandbox_core::{host::{Host, HostCreate}, id::SandboxId, name::TemplateName, size::MachineSize, process::ProcessSpec};
use sandbox_host::{HostConfig, HostManager};
use uuid::Uuid;
#[tokio::test(flavor = "multi_thread")]
async fn smoke() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    let dir = tempfile::tempdir().unwrap();
    let t = Instant::now();
    let mut config = HostConfig::new(dir.path()); config.pool_size = std::env::var("POOL").ok().and_then(|p| p.parse().ok()).unwrap_or(2);
    let host = HostManager::open(config).await.unwrap();
    println!("open {:?}", t.elapsed());
    let t = Instant::now();
    host.prepare(&TemplateName::default(), MachineSize::default()).await.unwrap();
    println!("prepare {:?}", t.elapsed());
    for _ in 0..6 {
        let id = SandboxId::from_uuid(Uuid::now_v7());
        let t = Instant::now();
        host.create_sandbox(HostCreate { id, generation: 1, template: TemplateName::default(), size: MachineSize::default(), env: Default::default() }).await.unwrap();
        let created = t.elapsed();
        let guest = host.guest(id);
        let out = guest.start_process(ProcessSpec::shell("true"), Duration::from_secs(5)).await.unwrap();
        let first = t.elapsed();
        let mut rows = vec![];
        for _ in 0..8 { let t2 = Instant::now(); let o = guest.start_process(ProcessSpec::shell("true"), Duration::from_secs(5)).await.unwrap(); rows.push((t2.elapsed().as_micros(), o.output.exit.unwrap().duration_us)); }
        let mut pings = vec![];
        for _ in 0..4 { let t2 = Instant::now(); guest.ping().await.unwrap(); pings.push(t2.elapsed().as_micros()); }
        println!("create {created:?} first exec {first:?} {:?} then {rows:?} ping {pings:?}", out.output.exit);
        let t = Instant::now();
        host.destroy_sandbox(id, 1).await.unwrap();
        println!("destroy {:?}", t.elapsed());
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    let id = SandboxId::from_uuid(Uuid::now_v7());
    host.create_sandbox(HostCreate { id, generation: 1, template: TemplateName::default(), size: MachineSize::default(), env: Default::default() }).await.unwrap();
    for c in ["df -m / | tail -1; hostname; cat /etc/machine-id; date; whoami; ps | head -20; free -m; mount; ls -la /dev | wc -l; cat /proc/self/cgroup"] {
    let out = host.guest(id).start_process(ProcessSpec::shell(c), Duration::from_secs(10)).await.unwrap();
    for c in out.output.chunks { println!("{}", String::from_utf8_lossy(&c.data)); }
    }
    println!("pid {:?} waiting {:?}", host.pid_of(id), host.waiting_pids());
    let roll = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", host.waiting_pids().first().copied().unwrap_or(host.pid_of(id).unwrap()))).unwrap();
    println!("{roll}");
    host.destroy_sandbox(id, 1).await.unwrap();
    host.shutdown().await;
}
