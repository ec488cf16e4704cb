//! Making templates from elsewhere.

use super::{templates::importing, *};
use crate::{
    id::PLATFORM_TEAM_ID,
    operation::OperationKind,
    sim::{Call, When},
    template::{
        ImportSource, ImportTemplate, MINIMAL_TEMPLATE_ID, TemplateKind, TemplateRecord,
        TemplateState,
    },
};

impl World {
    /// Templates beside `minimal`.
    fn others(&self) -> Vec<TemplateRecord> {
        let mut all = self.store.all_templates();
        all.retain(|it| it.id != MINIMAL_TEMPLATE_ID);
        all
    }

    /// Neither a template nor an image beside `minimal`.
    fn nothing_imported(&self) -> bool {
        self.others().is_empty() && self.host.images().is_empty()
    }
}

#[tokio::test(start_paused = true)]
async fn r27_an_import_makes_a_template_of_the_platforms_with_its_hosts_sizes() {
    let world = World::still().await;
    let made = world
        .api()
        .import_template(importing("tools"))
        .await
        .unwrap();
    assert_eq!(
        (made.state, made.kind),
        (TemplateState::Ready, TemplateKind::Image)
    );
    assert_eq!(
        (made.team_id, made.operation.clone()),
        (PLATFORM_TEAM_ID, None)
    );
    let image = world
        .host
        .images()
        .into_iter()
        .find(|it| it.id == made.id)
        .unwrap();
    assert_eq!(made.size_bytes(), image.disk_bytes);
    assert!(image.disk_bytes > 0);
    assert_eq!(world.others(), [made]);
}

#[tokio::test(start_paused = true)]
async fn r15_an_imports_outcome_is_found_under_its_operation() {
    let world = World::still().await;
    let api = world.api();
    let id = api.begin_import(importing("tools")).await.unwrap();
    let making = api.operation(id).await.unwrap();
    assert_eq!(
        (making.kind, making.sandbox_id),
        (OperationKind::Import, None)
    );
    world
        .within(SECOND * 5, "it is ready", |world| {
            world
                .others()
                .iter()
                .all(|it| it.state == TemplateState::Ready)
        })
        .await;
    let done = api.operation(id).await.unwrap();
    assert_eq!(done.status, OperationStatus::Succeeded);
    assert_eq!(done.template_id, Some(world.others()[0].id));
    // It is the platform's own business.
    assert_eq!(
        world.alpha().operation(id).await,
        Err(Error::OperationNotFound(id))
    );
}

#[tokio::test(start_paused = true)]
async fn r15_an_import_survives_its_caller_and_its_lease_is_kept() {
    let world = World::new().await;
    let other = world
        .another(EngineConfig {
            sole_owner: false,
            ..world.config
        })
        .await;
    world.host.delay(Call::Import, SECOND * 600);
    abandon(SECOND, world.api().import_template(importing("tools"))).await;
    world.sleep(SECOND * 300).await;
    let made = &world.others()[0];
    assert_eq!(made.state, TemplateState::Making);
    assert!(made.operation.as_ref().unwrap().lease_until > world.clock.now());
    // Its name is taken all the while, and it is seen by nobody.
    let again = world.api().import_template(importing("tools")).await;
    assert_eq!(again, Err(Error::TemplateExists("tools".to_owned())));
    assert!(world.api().template("tools").await.is_err());
    world.sleep(SECOND * 400).await;
    assert_eq!(world.others()[0].state, TemplateState::Ready);
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn r27_a_failed_import_says_why_and_leaves_nothing() {
    let world = World::new().await;
    let api = world.api();
    for (error, told) in [
        (
            HostError::BadSource("`/srv/root` is empty".to_owned()),
            Error::InvalidRequest("`/srv/root` is empty".to_owned()),
        ),
        (
            HostError::Unsupported("no debootstrap".to_owned()),
            Error::Unsupported("the host can't do this: no debootstrap".to_owned()),
        ),
    ] {
        for when in [When::Before, When::After] {
            world.host.fail(Call::Import, when, error.clone());
            let failed = api.import_template(importing("tools")).await;
            assert_eq!(failed, Err(told.clone()), "{when:?}");
            assert!(world.nothing_imported(), "{when:?}");
        }
    }
    let operations = world.store.all_operations();
    assert_eq!(operations.len(), 4);
    let failed = |it: &OperationRecord| matches!(it.status, OperationStatus::Failed { .. });
    assert!(operations.iter().all(failed), "{operations:?}");
    api.import_template(importing("tools")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_import_is_ordered_again_from_a_host_that_was_away() {
    let world = World::still().await;
    for when in [When::Before, When::After] {
        world.host.fail(Call::Import, when, unavailable());
        let name = format!("tools-{}", when as u8);
        let made = world.api().import_template(importing(&name)).await.unwrap();
        assert_eq!(made.state, TemplateState::Ready);
    }
    assert_eq!(world.host.count(Call::Import), 4);
}

#[tokio::test(start_paused = true)]
async fn an_import_that_takes_for_ever_ends() {
    let world = World::new().await;
    world
        .host
        .delay(Call::Import, world.config.import_timeout * 2);
    let late = world.api().import_template(importing("tools")).await;
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
    world
        .within(
            world.config.unknown_grace * 3 + SECOND * 3600,
            "all is gone",
            |world| world.nothing_imported(),
        )
        .await;
}

#[tokio::test(start_paused = true)]
async fn r36_an_import_cut_by_a_crash_is_given_up_and_its_name_is_free() {
    let mut world = World::new().await;
    world.host.delay(Call::Import, SECOND * 5);
    let id = world.api().begin_import(importing("tools")).await.unwrap();
    world.sleep(SECOND).await;
    world.crash().await;
    world.host.heal();
    world
        .within(
            SECOND * 300,
            "nothing is left of it",
            World::nothing_imported,
        )
        .await;
    let ended = world.api().operation(id).await.unwrap();
    assert!(
        matches!(ended.status, OperationStatus::Failed { .. }),
        "{ended:?}"
    );
    world
        .api()
        .import_template(importing("tools"))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_import_goes_through_lost_writes_and_replies() {
    // Which write of an import is lost; of the two, the begin's may be refused for good.
    for lost in ["begin", "end"] {
        for before in [true, false] {
            let world = World::still().await;
            let fail = |world: &World| {
                if before {
                    world.store.fail_next_write();
                } else {
                    world.store.lose_next_reply();
                }
            };
            world.host.delay(Call::Import, SECOND);
            if lost == "begin" {
                fail(&world);
            }
            let trouble = async {
                world.sleep(SECOND / 2).await;
                if lost == "end" {
                    fail(&world);
                }
            };
            let api = world.api();
            let (made, ()) = tokio::join!(api.import_template(importing("tools")), trouble);
            if lost == "begin" && before {
                assert!(matches!(made, Err(Error::Unavailable(_))), "{made:?}");
                assert!(world.nothing_imported());
                continue;
            }
            let made = made.unwrap();
            assert_eq!(world.others(), [made], "{lost} {before}");
            let operations = world.store.all_operations();
            assert_eq!(operations[0].status, OperationStatus::Succeeded);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r18_a_default_disk_that_the_content_does_not_fit_is_refused() {
    let world = World::new().await;
    let mut small = importing("tools");
    small.source = ImportSource::Directory {
        path: "/srv/large".to_owned(),
    };
    small.disk_size_mb = Some(64);
    let refused = world
        .api()
        .import_template(small.clone())
        .await
        .unwrap_err();
    assert!(
        refused.to_string().starts_with("`disk_size_mb`"),
        "{refused}"
    );
    assert!(world.nothing_imported());
    small.disk_size_mb = Some(128);
    let made = world.api().import_template(small).await.unwrap();
    assert_eq!(made.size.disk_size_mb, 128);
}

#[tokio::test(start_paused = true)]
async fn r42_a_source_that_makes_no_sense_is_refused_by_field_before_anything_is_done() {
    let world = World::still().await;
    let before = world.store.all_operations();
    let long = "x".repeat(5000);
    let debian = |suite: &str, packages: &[&str]| ImportSource::Debian {
        suite: suite.to_owned(),
        packages: packages.iter().map(|&it| it.to_owned()).collect(),
    };
    let many = vec!["vim"; 257];
    let directory = |path: &str| ImportSource::Directory {
        path: path.to_owned(),
    };
    let layout = |path: &str, reference: &str| ImportSource::OciLayout {
        path: path.to_owned(),
        reference: Some(reference.to_owned()),
    };
    let registry = |reference: &str| ImportSource::OciRegistry {
        reference: reference.to_owned(),
        insecure: false,
    };
    for (source, field) in [
        (directory(""), "path"),
        (directory("srv/root"), "path"),
        (directory("/a\0b"), "path"),
        (directory(&format!("/{long}")), "path"),
        (
            ImportSource::Tar {
                path: "x.tar".to_owned(),
            },
            "path",
        ),
        (layout("oci", "a"), "path"),
        (layout("/oci", ""), "reference"),
        (registry(""), "reference"),
        (registry("-v"), "reference"),
        (registry("a b"), "reference"),
        (registry(&long), "reference"),
        (debian("", &[]), "suite"),
        (debian("--help", &[]), "suite"),
        (debian("../x", &[]), "suite"),
        (debian("bookworm", &["--allow"]), "packages"),
        (debian("bookworm", &["vim;rm"]), "packages"),
        (debian("bookworm", &many), "packages"),
    ] {
        let request = ImportTemplate {
            source: source.clone(),
            ..importing("tools")
        };
        let refused = world.api().import_template(request).await.unwrap_err();
        let named = matches!(&refused, Error::InvalidRequest(text) if text.starts_with(&format!("`{field}`")));
        assert!(named, "{source:?}: {refused:?}");
    }
    let mut request = importing("tools");
    request.vcpus = Some(0);
    let refused = world.api().import_template(request).await.unwrap_err();
    assert!(refused.to_string().starts_with("`vcpus`"), "{refused}");
    assert_eq!(world.store.all_operations(), before);
    assert!(world.nothing_imported());
    assert_eq!(world.host.count(Call::Import), 0);
}
