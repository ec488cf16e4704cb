//! The images of this host: who lies on them, and their going.

use std::{collections::BTreeMap, sync::Arc};

use sandbox_core::{
    host::{HostError, HostImage, HostImport, HostReport, ImageDeletion},
    id::TemplateId,
    size::MachineSize,
    template::{MINIMAL_TEMPLATE_ID, TemplateKind},
};
use tokio::task::spawn_blocking;

use super::{Inner, create::stopping};
use crate::{image::Content, import::import, space};

impl Inner {
    pub(super) async fn report(self: &Arc<Self>) -> Result<HostReport, HostError> {
        let inner = Arc::clone(self);
        let stored = spawn_blocking(move || inner.images.store().list())
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(self.step("listing images"))?;
        let users = self.table.users();
        let users_of = |id| users.get(&id).copied().unwrap_or(0);
        let mut images: Vec<HostImage> = stored
            .iter()
            .map(|image| image.report(users_of(image.manifest.id)))
            .collect();
        images.push(HostImage {
            id: MINIMAL_TEMPLATE_ID,
            kind: TemplateKind::Image,
            size: MachineSize::default(),
            disk_bytes: 0,
            memory_bytes: 0,
            users: users_of(MINIMAL_TEMPLATE_ID),
            deleting: false,
        });
        images.sort_by_key(|image| image.id);
        Ok(self.table.report(self.id, self.epoch, images))
    }

    /// Makes an image from elsewhere.
    pub(super) async fn import(self: Arc<Self>, order: HostImport) -> Result<HostImage, HostError> {
        let HostImport { image: id, source } = order;
        let step = self.step("importing an image");
        if let Some(image) = self.images.store().find(id).map_err(&step)? {
            if image.deleting || image.manifest.content != Content::Image {
                return Err(HostError::ImageExists(id));
            }
            return Ok(image.report(0));
        }
        space::require(self.images.store().root(), space::SPARE_MB)?;
        let exists_or = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => HostError::ImageExists(id),
            _ => step(error),
        };
        let making = self.images.store().begin(id).map_err(&exists_or)?;
        let imported = tokio::select! {
            imported = import(&self.boot.setup, &source, making.folder()) => imported?,
            () = self.stopping.cancelled() => return Err(stopping()),
        };
        let size = MachineSize {
            disk_size_mb: imported.disk.disk_size_mb,
            ..MachineSize::default()
        };
        let image = making
            .publish(Content::Image, size, imported.env)
            .await
            .map_err(exists_or)?;
        self.table.images_changed();
        Ok(image.report(0))
    }

    /// What processes of a sandbox on this image find in their environment; nothing for `minimal`.
    pub(super) fn image_env(&self, image: TemplateId) -> std::io::Result<BTreeMap<String, String>> {
        let found = self.images.store().find(image)?;
        Ok(found.map(|image| image.manifest.env).unwrap_or_default())
    }

    /// Removes an image, or marks it to go with the last machine that lies on it.
    pub(super) async fn delete_image(
        self: Arc<Self>,
        image: TemplateId,
    ) -> Result<ImageDeletion, HostError> {
        let step = self.step("removing an image");
        // Before it is looked for: an order that makes it may be under way, for nobody any more.
        self.images.store().bury(image);
        if self.images.store().find(image).map_err(&step)?.is_none() {
            return Ok(ImageDeletion::Freed);
        }
        self.images.store().mark_deleting(image).map_err(&step)?;
        for machine in self.pool.drop_image(image) {
            self.discard(&machine).await;
        }
        let freed = self.remove_unused(image).await.map_err(&step)?;
        self.table.images_changed();
        Ok(if freed {
            ImageDeletion::Freed
        } else {
            ImageDeletion::InUse
        })
    }

    /// A machine that lay on this image is gone: removes the image if it only waited for that.
    pub(super) async fn collect_image(&self, image: TemplateId) {
        let going = match self.images.store().find(image) {
            Ok(Some(found)) => found.deleting,
            Ok(None) => false,
            Err(error) => {
                tracing::error!(%image, %error, "an image can't be read");
                false
            }
        };
        if !going {
            return;
        }
        match self.remove_unused(image).await {
            Ok(true) => {
                tracing::info!(%image, "removed an image with its last user");
                self.table.images_changed();
            }
            Ok(false) => {}
            // The next start removes it.
            Err(error) => tracing::error!(%image, %error, "an image could not be removed"),
        }
    }

    async fn remove_unused(&self, image: TemplateId) -> std::io::Result<bool> {
        if self.table.users().contains_key(&image) {
            return Ok(false);
        }
        self.images.remove_image(image).await
    }
}
