//! Every way in which a template of the platform's could be replaced, shadowed or removed.

use super::{
    rights::{actor, snapshot_of},
    templates::{forbidden, from, importing},
    *,
};
use crate::{
    id::PLATFORM_TEAM_ID,
    template::{MINIMAL_TEMPLATE_ID, TemplateKind, TemplateState},
};

#[tokio::test(start_paused = true)]
async fn r24_no_template_is_named_like_an_id() {
    let world = World::still().await;
    let alpha = world.alpha();
    let id = alpha.create(CreateSandbox::default()).await.unwrap().id;
    let platforms = MINIMAL_TEMPLATE_ID.to_string();
    for name in [platforms.as_str(), "tpl-", "tpl-mine"] {
        let refused = alpha.snapshot(snapshot_of(id, Some(name))).await;
        assert!(
            matches!(refused, Err(Error::InvalidRequest(_))),
            "{refused:?}"
        );
        let refused = world.api().import_template(importing(name)).await;
        assert!(
            matches!(refused, Err(Error::InvalidRequest(_))),
            "{refused:?}"
        );
    }
    assert_eq!(world.state(id), Some(SandboxState::Running));
    assert_eq!(
        alpha.template(&platforms).await.unwrap().team_id,
        PLATFORM_TEAM_ID
    );
}

#[tokio::test(start_paused = true)]
async fn r24_deleting_the_platforms_is_forbidden_before_anything_is_touched() {
    let world = World::still().await;
    let tools = world.platforms("tools").await;
    let rootless = world.api_of(Caller::team(actor("no admin's"), PLATFORM_TEAM_ID));
    let (before, images) = (world.everything(), world.host.images());
    for api in [&world.alpha(), &rootless] {
        for name in [
            "tools",
            "minimal",
            &tools.id.to_string(),
            &MINIMAL_TEMPLATE_ID.to_string(),
        ] {
            forbidden(&api.delete_template(name).await);
        }
    }
    assert_eq!((world.everything(), world.host.images()), (before, images));
    assert_eq!(world.alpha().template("tools").await.unwrap(), tools);
    world.api().delete_template("tools").await.unwrap();
    let gone = world.alpha().template("tools").await;
    assert_eq!(gone, Err(Error::TemplateNotFound("tools".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn r24_minimal_is_deleted_by_nobody() {
    let world = World::still().await;
    for name in ["minimal", &MINIMAL_TEMPLATE_ID.to_string()] {
        let refused = world.api().delete_template(name).await.unwrap_err();
        assert!(
            matches!(&refused, Error::Forbidden(words) if words.contains("every host makes it")),
            "{refused:?}"
        );
    }
    assert_eq!(
        world.api().template("minimal").await.unwrap().state,
        TemplateState::Ready
    );
}

#[tokio::test(start_paused = true)]
async fn r24_no_snapshot_takes_a_name_of_the_platforms() {
    let world = World::still().await;
    let tools = world.platforms("tools").await;
    world
        .put(
            PLATFORM_TEAM_ID,
            "soon",
            TemplateKind::Image,
            TemplateState::Making,
        )
        .await;
    let alpha = world.alpha();
    let id = alpha.create(CreateSandbox::default()).await.unwrap().id;
    let (before, images) = (world.everything(), world.host.images());
    for name in ["tools", "minimal", "soon"] {
        for kind in TemplateKind::ALL {
            let mut request = snapshot_of(id, Some(name));
            request.kind = kind;
            forbidden(&alpha.snapshot(request.clone()).await);
            forbidden(&alpha.begin_snapshot(request).await);
        }
    }
    assert_eq!((world.everything(), world.host.images()), (before, images));
    assert_eq!(world.state(id), Some(SandboxState::Running));
    assert_eq!(alpha.template("tools").await.unwrap(), tools);
}

#[tokio::test(start_paused = true)]
async fn r24_the_platforms_own_is_not_overwritten_by_its_administrator_either() {
    let world = World::still().await;
    let tools = world.platforms("tools").await;
    let admin = world.api();
    let id = admin.create(CreateSandbox::default()).await.unwrap().id;
    for name in ["tools", "minimal"] {
        let exists = Error::TemplateExists(name.to_owned());
        let snapshot = admin.snapshot(snapshot_of(id, Some(name))).await;
        assert_eq!(snapshot, Err(exists.clone()));
        assert_eq!(
            admin.import_template(importing(name)).await,
            Err(exists.clone())
        );
        assert_eq!(admin.begin_import(importing(name)).await, Err(exists));
    }
    assert_eq!(admin.template("tools").await.unwrap(), tools);
    assert_eq!(world.state(id), Some(SandboxState::Running));
}

#[tokio::test(start_paused = true)]
async fn r24_importing_is_for_administrators() {
    let world = World::still().await;
    let rootless = world.api_of(Caller::team(actor("no admin's"), PLATFORM_TEAM_ID));
    let before = world.everything();
    for api in [&world.alpha(), &rootless] {
        for name in ["minimal", "mine"] {
            forbidden(&api.import_template(importing(name)).await);
            forbidden(&api.begin_import(importing(name)).await);
        }
    }
    assert_eq!(world.everything(), before);
    assert_eq!(world.host.images(), vec![]);
}

#[tokio::test(start_paused = true)]
async fn r24_only_an_administrator_makes_the_platforms_templates() {
    let world = World::still().await;
    let rootless = world.api_of(Caller::team(actor("no admin's"), PLATFORM_TEAM_ID));
    let id = rootless.create(CreateSandbox::default()).await.unwrap().id;
    forbidden(&rootless.snapshot(snapshot_of(id, Some("mine"))).await);
    forbidden(&rootless.snapshot(snapshot_of(id, None)).await);
    let made = world
        .api()
        .snapshot(snapshot_of(id, Some("mine")))
        .await
        .unwrap();
    assert_eq!(made.team_id, PLATFORM_TEAM_ID);
}

#[tokio::test(start_paused = true)]
async fn r24_a_name_that_the_platform_took_later_is_the_platforms() {
    let world = World::still().await;
    let alpha = world.alpha();
    let own = world.snapshot_by(&alpha, "tools").await;
    assert_eq!(alpha.template("tools").await.unwrap(), own);
    let platforms = world.platforms("tools").await;
    assert_eq!(alpha.template("tools").await.unwrap(), platforms);
    assert_eq!(
        alpha.create(from("tools")).await.unwrap().template_id,
        platforms.id
    );
    forbidden(&alpha.delete_template("tools").await);
    // The team's own is still there, by its ID.
    let id = own.id.to_string();
    let sandbox = alpha.create(from(&id)).await.unwrap();
    assert_eq!(
        (sandbox.template_id, sandbox.template),
        (own.id, own.name.clone())
    );
    alpha.destroy(sandbox.id).await.unwrap();
    alpha.delete_template(&id).await.unwrap();
    assert_eq!(alpha.template("tools").await.unwrap(), platforms);
}
