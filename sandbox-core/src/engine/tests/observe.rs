use std::sync::Mutex;

use super::*;
use crate::{
    engine::EndedOperation,
    operation::OperationKind,
    sim::{Call, When},
};

#[tokio::test(start_paused = true)]
async fn r47_each_operation_that_ends_is_told_once_with_its_outcome() {
    let world = World::new().await;
    let told: Arc<Mutex<Vec<EndedOperation>>> = Arc::default();
    let telling = Arc::clone(&told);
    world
        .engine
        .on_operation_end(move |ended| telling.lock().unwrap().push(ended.clone()));
    world
        .engine
        .on_operation_end(|_| panic!("the first one stays"));

    world.host.delay(Call::Create, Duration::from_secs(2));
    let create = || world.create();
    let made = create().await.unwrap();
    world.host.heal();
    let refused = HostError::Boot("no".to_owned());
    world.host.fail(Call::Create, When::Before, refused);
    create().await.unwrap_err();
    world.destroy(made.id).await.unwrap();
    world.destroy(made.id).await.unwrap();

    let told = told.lock().unwrap().clone();
    let ends: Vec<_> = told.iter().map(|it| (it.kind, it.succeeded)).collect();
    assert_eq!(
        ends,
        [
            (OperationKind::Create, true),
            (OperationKind::Create, false),
            (OperationKind::Destroy, true),
        ]
    );
    assert_eq!(told[0].took, Duration::from_secs(2));
}
