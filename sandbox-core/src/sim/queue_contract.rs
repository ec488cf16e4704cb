//! What every [`Queue`] owes, as one test per promise.
//!
//! [`queue_contract!`](crate::queue_contract) stamps a `#[tokio::test]` for each of them over a
//! factory: an `async fn` that returns two ends of one empty queue, as two processes have them (the
//! same end twice where it lives within one process), and whatever must live as long as they do.
//!
//! ```text
//! async fn fresh() -> ([Arc<dyn Queue>; 2], Server) { … }
//! sandbox_core::queue_contract!(fresh);
//! ```

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    id::BuildId,
    queue::{Queue, QueueError, WAKE_UPS_MAX},
};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);
/// For what does not come.
const SHORT: Duration = Duration::from_millis(200);

type Ends = [Arc<dyn Queue>; 2];

/// Stamps one `#[tokio::test]` per promise of the queue contract. Takes the name of an
/// `async fn() -> ([Arc<dyn Queue>; 2], impl Sized)` that makes an empty queue with two ends, and
/// what must outlive it.
#[macro_export]
macro_rules! queue_contract {
    ($factory:path) => {
        $crate::queue_contract!(@tests $factory;
            wake_ups_come_in_the_order_in_which_they_were_announced
            an_empty_queue_gives_nothing_once_patience_runs_out
            with_no_patience_a_call_takes_what_is_there
            who_waits_is_woken_up
            each_wake_up_goes_to_one_of_those_who_wait
            a_build_that_is_announced_twice_wakes_two
            many_announcers_and_takers_lose_nothing_and_double_nothing
            a_call_that_is_given_up_takes_no_wake_up_with_it
            a_full_queue_forgets_and_goes_on
            a_closed_end_says_so_at_once
        );
    };
    (@tests $factory:path; $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let (ends, _keep) = $factory().await;
            $crate::sim::queue_contract::$name(ends).await;
        }
    )*};
}

fn id(number: u128) -> BuildId {
    BuildId::from_uuid(Uuid::from_u128(number))
}

/// What waits, taken without patience.
async fn drained(queue: &dyn Queue) -> Vec<BuildId> {
    let mut all = Vec::new();
    while let Some(id) = queue.next(Duration::ZERO).await.unwrap() {
        all.push(id);
    }
    all
}

/// First in, first out, whichever end it goes in and out by.
pub async fn wake_ups_come_in_the_order_in_which_they_were_announced([one, other]: Ends) {
    for number in 1..=6 {
        let end = if number % 2 == 0 { &one } else { &other };
        end.announce(id(number)).await.unwrap();
    }
    for number in 1..=6 {
        let end = if number % 3 == 0 { &one } else { &other };
        assert_eq!(end.next(LONG).await, Ok(Some(id(number))));
    }
}

/// No wake-up, no error; and the wait neither ends early nor goes on.
pub async fn an_empty_queue_gives_nothing_once_patience_runs_out([one, other]: Ends) {
    for end in [one, other] {
        for patience in [SHORT, 3 * SHORT] {
            let began = Instant::now();
            assert_eq!(end.next(patience).await, Ok(None));
            let took = began.elapsed();
            assert!(took >= patience / 2, "{took:?} of {patience:?}");
            assert!(took < LONG, "{took:?} of {patience:?}");
        }
    }
}

/// It does not wait, and does not miss.
pub async fn with_no_patience_a_call_takes_what_is_there([one, other]: Ends) {
    assert_eq!(one.next(Duration::ZERO).await, Ok(None));
    one.announce(id(1)).await.unwrap();
    assert_eq!(other.next(Duration::ZERO).await, Ok(Some(id(1))));
    assert_eq!(other.next(Duration::ZERO).await, Ok(None));
}

/// Whichever of the two comes first.
pub async fn who_waits_is_woken_up([one, other]: Ends) {
    for number in 1..=10 {
        let waiter = Arc::clone(&other);
        let waiter = tokio::spawn(async move { waiter.next(LONG).await });
        for _ in 0..number {
            tokio::task::yield_now().await;
        }
        one.announce(id(number)).await.unwrap();
        assert_eq!(waiter.await.unwrap(), Ok(Some(id(number))));
    }
}

/// Eight wait at two ends, and eight are woken up.
pub async fn each_wake_up_goes_to_one_of_those_who_wait(ends: Ends) {
    let waiters: Vec<_> = (0..8)
        .map(|number| {
            let end = Arc::clone(&ends[number % 2]);
            tokio::spawn(async move { end.next(LONG).await.unwrap() })
        })
        .collect();
    for number in 1..=8 {
        ends[0].announce(id(number)).await.unwrap();
    }
    let mut woken = HashSet::new();
    for waiter in waiters {
        woken.insert(waiter.await.unwrap());
    }
    assert_eq!(woken, (1..=8).map(|number| Some(id(number))).collect());
    assert_eq!(ends[1].next(SHORT).await, Ok(None));
}

/// A queue counts announcements, not builds.
pub async fn a_build_that_is_announced_twice_wakes_two([one, other]: Ends) {
    one.announce(id(1)).await.unwrap();
    other.announce(id(1)).await.unwrap();
    assert_eq!(drained(&*one).await, [id(1), id(1)]);
}

/// Under load, with everything in order.
pub async fn many_announcers_and_takers_lose_nothing_and_double_nothing(ends: Ends) {
    const TASKS: u128 = 8;
    const EACH: u128 = 25;
    let takers: Vec<_> = (0..TASKS)
        .map(|number| {
            let end = Arc::clone(&ends[(number % 2) as usize]);
            tokio::spawn(async move {
                let mut taken = Vec::new();
                for _ in 0..EACH {
                    taken.push(end.next(LONG).await.unwrap().unwrap());
                }
                taken
            })
        })
        .collect();
    let announcers: Vec<_> = (0..TASKS)
        .map(|task| {
            let end = Arc::clone(&ends[(task / 4) as usize]);
            tokio::spawn(async move {
                for number in 0..EACH {
                    end.announce(id(1 + task * EACH + number)).await.unwrap();
                }
            })
        })
        .collect();
    for announcer in announcers {
        announcer.await.unwrap();
    }
    let mut all = Vec::new();
    for taker in takers {
        all.extend(taker.await.unwrap());
    }
    all.sort_unstable();
    let expected: Vec<BuildId> = (1..=TASKS * EACH).map(id).collect();
    assert_eq!(all, expected);
}

/// A worker goes away while it waits, or just as it is woken up: somebody else is.
pub async fn a_call_that_is_given_up_takes_no_wake_up_with_it([one, other]: Ends) {
    for number in 1..=40 {
        let waiter = Arc::clone(&one);
        let waiter = tokio::spawn(async move { waiter.next(LONG).await.unwrap() });
        for _ in 0..number {
            tokio::task::yield_now().await;
        }
        if number % 2 == 0 {
            other.announce(id(number)).await.unwrap();
            waiter.abort();
        } else {
            waiter.abort();
            other.announce(id(number)).await.unwrap();
        }
        let woken = match waiter.await {
            Ok(woken) => woken,
            Err(_) => other.next(LONG).await.unwrap(),
        };
        assert_eq!(woken, Some(id(number)));
    }
    assert_eq!(other.next(SHORT).await, Ok(None));
}

/// Nobody takes anything for a long time.
pub async fn a_full_queue_forgets_and_goes_on([one, other]: Ends) {
    for number in 0..WAKE_UPS_MAX as u128 + 20 {
        one.announce(id(number)).await.unwrap();
    }
    let waiting = drained(&*other).await;
    assert_eq!(waiting.len(), WAKE_UPS_MAX);
    assert!(waiting.is_sorted());
    one.announce(id(1)).await.unwrap();
    assert_eq!(other.next(LONG).await, Ok(Some(id(1))));
}

/// Those who wait there are told, and so is everybody after.
pub async fn a_closed_end_says_so_at_once([one, _]: Ends) {
    let waiter = Arc::clone(&one);
    let waiter = tokio::spawn(async move { waiter.next(4 * LONG).await });
    assert_eq!(one.next(SHORT).await, Ok(None));
    let began = Instant::now();
    one.close().await;
    assert_eq!(waiter.await.unwrap(), Err(QueueError::Closed));
    assert_eq!(one.next(LONG).await, Err(QueueError::Closed));
    assert_eq!(one.announce(id(1)).await, Err(QueueError::Closed));
    one.close().await;
    assert!(began.elapsed() < LONG / 2);
}
