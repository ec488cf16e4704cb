//! What is noted of hosts.

use std::sync::Arc;

use uuid::Uuid;

use super::fixtures::*;
use crate::{
    host::{HostSeen, ReportNumber},
    id::HostId,
    store::Store,
};

/// Also where an earlier time or a lower number replaces a later one: who notes it knows why.
pub async fn r37_the_newest_note_of_a_host_is_the_one_that_is_there(store: Arc<dyn Store>) {
    let [one, other] = [1, 2].map(|number| HostId::from_uuid(Uuid::from_u128(number)));
    assert_eq!(store.host(one).await.unwrap(), None);
    let seen = |host_id, epoch, sequence, second| HostSeen {
        host_id,
        report: ReportNumber { epoch, sequence },
        seen_at: at(second),
    };
    let big = 1_700_000_000_000_000;
    for note in [
        seen(one, big, 7, 10),
        seen(one, big + 1, 0, 20),
        seen(one, big, 9, 5),
    ] {
        store.note_host(note).await.unwrap();
        assert_eq!(store.host(one).await.unwrap(), Some(note));
        assert_eq!(store.host(other).await.unwrap(), None);
    }
    store.note_host(seen(other, 0, 0, 0)).await.unwrap();
    assert_eq!(store.host(one).await.unwrap(), Some(seen(one, big, 9, 5)));
    assert_eq!(store.host(other).await.unwrap(), Some(seen(other, 0, 0, 0)));
}
