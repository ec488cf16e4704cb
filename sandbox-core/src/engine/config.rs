//! The engine's numbers.

use std::time::Duration;

/// The engine's numbers. The default is right for one program with its own store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineConfig {
    /// Nobody else works on this store: at start, leases of others are leases of the dead, and
    /// operations are settled at once instead of when their lease runs out.
    pub sole_owner: bool,
    /// How long an operation is believed to be at work without a word from it. It speaks up three
    /// times as often.
    pub lease: Duration,
    /// The most that making a sandbox may take, a template's first boot included.
    pub create_timeout: Duration,
    /// The most that pausing or resuming may take.
    pub pause_timeout: Duration,
    /// The most that making a template of a sandbox may take.
    pub snapshot_timeout: Duration,
    /// The most that making a template from elsewhere may take.
    pub import_timeout: Duration,
    /// The most that one order to destroy, or to delete an image, may take before it is given
    /// again.
    pub destroy_timeout: Duration,
    /// How often an order that failed is given again before its caller is told.
    pub order_attempts: u32,
    /// The pause before the first repetition of an order or a write; it doubles.
    pub backoff: Duration,
    /// The pause before the reconciler takes up a destroy that its host could not do.
    pub destroy_retry: Duration,
    /// For how long a machine must be unknown to the store before it is destroyed.
    pub unknown_grace: Duration,
    /// For how long nobody must have heard the host before its sandboxes are missing.
    pub host_silence: Duration,
    /// The longest pause between two rounds of the reconciler.
    pub round_max: Duration,
    /// The shortest.
    pub round_min: Duration,
    /// For how long the outcome of an operation is kept.
    pub operation_retention: Duration,
    /// Output that `exec` collects, in bytes; what comes beyond is counted and dropped.
    pub exec_output_max_bytes: u64,
    /// How long one call into a guest waits for a process to say something.
    pub long_poll: Duration,
    /// For how long the store's word that a sandbox runs is trusted; also how often its deadline is
    /// pushed at most.
    pub admission: Duration,
    /// Template builds that run at the same time. With none, builds wait for another engine.
    pub build_workers: u32,
    /// The most that one attempt at a build may take.
    pub build_timeout: Duration,
    /// For how long a build may wait for a worker.
    pub build_queue_timeout: Duration,
    /// How often a worker looks for builds that nobody woke it up for.
    pub build_glance: Duration,
    /// For how long the result of a build's step is kept that no build uses.
    pub layer_retention: Duration,
    /// For how long a build that has ended is kept, with its log.
    pub build_retention: Duration,
    /// For how long an uploaded context is kept that no build uses.
    pub context_retention: Duration,
    /// How long shutting down waits for operations in flight.
    pub shutdown_timeout: Duration,
}

impl EngineConfig {
    /// Right for one program with its own store.
    pub const DEFAULT: Self = Self {
        sole_owner: true,
        lease: Duration::from_secs(30),
        create_timeout: Duration::from_secs(180),
        pause_timeout: Duration::from_secs(180),
        snapshot_timeout: Duration::from_secs(1800),
        import_timeout: Duration::from_secs(3600),
        destroy_timeout: Duration::from_secs(10),
        order_attempts: 3,
        backoff: Duration::from_millis(50),
        destroy_retry: Duration::from_secs(5),
        unknown_grace: Duration::from_secs(60),
        host_silence: Duration::from_secs(30),
        round_max: Duration::from_secs(30),
        round_min: Duration::from_millis(100),
        operation_retention: Duration::from_secs(7 * 24 * 3600),
        exec_output_max_bytes: 16 * 1024 * 1024,
        long_poll: Duration::from_secs(10),
        admission: Duration::from_secs(1),
        build_workers: 2,
        build_timeout: Duration::from_secs(3600),
        build_queue_timeout: Duration::from_secs(24 * 3600),
        build_glance: Duration::from_secs(5),
        layer_retention: Duration::from_secs(7 * 24 * 3600),
        build_retention: Duration::from_secs(30 * 24 * 3600),
        context_retention: Duration::from_secs(24 * 3600),
        shutdown_timeout: Duration::from_secs(10),
    };
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}
