//! What builds leave behind on purpose, for the collection of garbage to judge: cache volumes and built images.

use std::collections::HashMap;

use bollard::query_parameters::{
    ListImagesOptionsBuilder, ListVolumesOptionsBuilder, RemoveImageOptionsBuilder, RemoveVolumeOptionsBuilder,
};

use super::{DockerRunner, LABEL_IMAGE, create, fault};
use crate::ids::Micros;
use crate::runner::RunnerError;
use crate::runner::spec::LABEL_INSTANCE;

/// An image that was built for this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// [`crate::runner::PreparedImage::reference`] of it.
    pub reference: String,
    /// When it was built (an unchanged build gives the old image again).
    pub built: Micros,
    /// Bytes, with the layers that it shares.
    pub bytes: u64,
}

impl DockerRunner {
    /// The cache volumes of this instance, by the name that [`crate::runner::spec::CacheMount::volume`] has.
    ///
    /// # Errors
    /// As [`RunnerError`] says.
    pub async fn caches(&self) -> Result<Vec<String>, RunnerError> {
        let label = format!("{LABEL_INSTANCE}={}", self.settings.instance);
        let options = ListVolumesOptionsBuilder::new().filters(&HashMap::from([("label", vec![label])])).build();
        let found = self.docker.list_volumes(Some(options)).await;
        let found = found.map_err(|error| self.fault("list the volumes", &error))?;
        let prefix = create::volume_name(&self.settings.instance, "");
        let volumes = found.volumes.unwrap_or_default();
        let mut names: Vec<_> =
            volumes.iter().filter_map(|volume| volume.name.strip_prefix(&prefix).map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Removes a cache volume; no error if there is none.
    ///
    /// # Errors
    /// [`RunnerError::Other`] if a unit uses it.
    pub async fn remove_cache(&self, volume: &str) -> Result<(), RunnerError> {
        create::check_volume(volume)?;
        let name = create::volume_name(&self.settings.instance, volume);
        let options = RemoveVolumeOptionsBuilder::new().force(false).build();
        match self.docker.remove_volume(&name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if fault::is_absent(&error) => Ok(()),
            Err(error) => Err(self.fault(&format!("remove cache volume `{volume}`"), &error)),
        }
    }

    /// The images that were built for this instance, oldest first.
    ///
    /// # Errors
    /// As [`RunnerError`] says.
    pub async fn built_images(&self) -> Result<Vec<BuiltImage>, RunnerError> {
        let label = format!("{LABEL_IMAGE}={}", self.settings.instance);
        let options = ListImagesOptionsBuilder::new().filters(&HashMap::from([("label", vec![label])])).build();
        let found = self.docker.list_images(Some(options)).await;
        let found = found.map_err(|error| self.fault("list the images", &error))?;
        let mut images: Vec<_> = found
            .into_iter()
            .map(|image| BuiltImage {
                reference: image.id,
                built: Micros(image.created.saturating_mul(1_000_000)),
                bytes: u64::try_from(image.size).unwrap_or(0),
            })
            .collect();
        images.sort_by_key(|image| image.built);
        Ok(images)
    }

    /// Removes an image that was built for this instance; no error if there is none.
    ///
    /// # Errors
    /// [`RunnerError::Other`] if a unit uses it or it is not ours.
    pub async fn remove_image(&self, reference: &str) -> Result<(), RunnerError> {
        if !self.built_images().await?.iter().any(|image| image.reference == reference) {
            return Ok(());
        }
        // It has a name, which alone makes the engine ask for force when an id is given; a container that uses it still
        // makes it refuse.
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        match self.docker.remove_image(reference, Some(options), None).await {
            Ok(_) => Ok(()),
            Err(error) if fault::is_absent(&error) => Ok(()),
            Err(error) => Err(self.fault(&format!("remove image `{reference}`"), &error)),
        }
    }
}
