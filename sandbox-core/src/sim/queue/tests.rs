//! What goes wrong when told so, in paused time.

use std::{
    collections::VecDeque,
    sync::{
        Mutex as StdMutex,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::poll;
use uuid::Uuid;

use super::*;

mod contract {
    use super::*;

    async fn fresh() -> ([Arc<dyn Queue>; 2], ()) {
        let queue = SimQueue::new();
        let other = queue.reached_through(Arc::new(NoFaults));
        ([Arc::new(queue), Arc::new(other)], ())
    }

    crate::queue_contract!(fresh);
}

const LONG: Duration = Duration::from_secs(60);

fn id(number: u128) -> BuildId {
    BuildId::from_uuid(Uuid::from_u128(number))
}

/// Faults as they stand in a list, and then none.
#[derive(Default)]
struct Listed {
    announced: StdMutex<VecDeque<Announced>>,
    away: AtomicBool,
}

impl QueueFaults for Listed {
    fn announced(&self, _: BuildId) -> Announced {
        let next = self.announced.lock().unwrap().pop_front();
        next.unwrap_or(Announced::Arrives)
    }

    fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }
}

fn faulty(announced: impl IntoIterator<Item = Announced>) -> (SimQueue, Arc<Listed>) {
    let faults = Arc::new(Listed {
        announced: StdMutex::new(announced.into_iter().collect()),
        ..Listed::default()
    });
    let queue = SimQueue::new().reached_through(Arc::clone(&faults) as Arc<dyn QueueFaults>);
    (queue, faults)
}

/// What comes within a minute, and after how many seconds.
async fn arrivals(queue: &SimQueue) -> Vec<(BuildId, u64)> {
    let began = Instant::now();
    let mut arrived = Vec::new();
    while let Some(id) = queue.next(LONG).await.unwrap() {
        arrived.push((id, began.elapsed().as_secs()));
    }
    arrived
}

#[tokio::test(start_paused = true)]
async fn wake_ups_are_lost_doubled_and_late_as_told() {
    let second = Duration::from_secs(1);
    let (queue, _) = faulty([
        Announced::IsLost,
        Announced::IsLate(5 * second),
        Announced::ComesTwice(10 * second),
    ]);
    for number in 1..=4 {
        queue.announce(id(number)).await.unwrap();
    }
    let expected = [(id(3), 0), (id(4), 0), (id(2), 5), (id(3), 10)];
    assert_eq!(arrivals(&queue).await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_failed_announcement_may_have_arrived() {
    let fails = |arrives| Announced::Fails { arrives };
    let (queue, _) = faulty([fails(false), fails(true)]);
    for number in 1..=2 {
        let failed = queue.announce(id(number)).await;
        assert!(matches!(failed, Err(QueueError::Unavailable(_))));
    }
    assert_eq!(arrivals(&queue).await, [(id(2), 0)]);
}

#[tokio::test(start_paused = true)]
async fn while_it_is_away_waits_last_as_long_as_their_patience_and_end_in_an_error() {
    let (queue, faults) = faulty([]);
    faults.away.store(true, Ordering::Relaxed);
    assert!(queue.announce(id(1)).await.is_err());
    let began = Instant::now();
    let failed = queue.next(LONG).await;
    assert!(matches!(failed, Err(QueueError::Unavailable(_))));
    assert_eq!(began.elapsed(), LONG);

    let waiter = tokio::spawn({
        let queue = queue.clone();
        async move { queue.next(LONG).await }
    });
    sleep(LONG / 2).await;
    faults.away.store(false, Ordering::Relaxed);
    queue.announce(id(2)).await.unwrap();
    assert_eq!(waiter.await.unwrap(), Ok(Some(id(2))));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_longest_are_woken_first_also_after_one_has_gone() {
    let (queue, _) = faulty([]);
    let mut first = Box::pin(queue.next(LONG));
    let mut second = Box::pin(queue.next(LONG));
    let mut third = Box::pin(queue.next(LONG));
    for waiter in [&mut first, &mut second, &mut third] {
        assert!(poll!(waiter).is_pending());
    }
    drop(first);
    queue.announce(id(1)).await.unwrap();
    queue.announce(id(2)).await.unwrap();
    assert_eq!(second.await, Ok(Some(id(1))));
    assert_eq!(third.await, Ok(Some(id(2))));
}

#[tokio::test(start_paused = true)]
async fn one_end_is_closed_and_the_other_goes_on() {
    let queue = SimQueue::new();
    let other = queue.reached_through(Arc::new(NoFaults));
    queue.announce(id(1)).await.unwrap();
    queue.close().await;
    assert_eq!(queue.next(LONG).await, Err(QueueError::Closed));
    assert_eq!(other.next(LONG).await, Ok(Some(id(1))));
}
