//! The container engine, and the image that every container is made from.

use std::path::Path;
use std::sync::LazyLock;

use futures_util::TryStreamExt as _;
use sepulcher::cli::store::MirrorArgs;
use sepulcher::image::definition::Definitions;
use sepulcher::image::fetch::Quiet;
use sepulcher::image::system;
use sepulcher::tether::explain;
use testcontainers::bollard::query_parameters::{CreateImageOptionsBuilder, KillContainerOptionsBuilder};
use testcontainers::bollard::{Docker, body_full};

/// Name of the image in the engine; its tag is the digest of its lock.
pub const IMAGE: &str = "sepulcher-topology";

/// The image's tag, once the engine has it.
static TAG: LazyLock<Result<String, String>> = LazyLock::new(|| {
    if std::env::var_os("DOCKER_HOST").is_none() {
        return Err("DOCKER_HOST names no container engine: `cargo xtask topology` starts one".into());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err("there is no /dev/net/tun".into());
    }
    finished(imported())?
});

/// Runs what talks to the engine to its end.
fn finished<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| error.to_string())?.block_on(work))
}

/// Kills a container's program with SIGKILL, of which it hears nothing.
pub fn kill(container: &str) {
    let kill = async {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        Docker::connect_with_defaults()?.kill_container(container, Some(options)).await
    };
    finished(kill).unwrap().unwrap();
}

/// The image's tag, or `None` when the test cannot run here: then that is said, and fails where it has to
/// (`CI` is set).
pub fn tag(test: &str) -> Option<&'static str> {
    match &*TAG {
        Ok(tag) => Some(tag),
        Err(missing) => {
            assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {missing}");
            eprintln!("SKIPPED {test}: {missing}");
            None
        }
    }
}

/// Makes the image out of locked packages, unless the engine has it.
async fn imported() -> Result<String, String> {
    let image = Definitions::Embedded.image("tools-topology").map_err(|error| explain(&error))?;
    let tag = image.digest().to_string()[..16].to_owned();
    let docker = Docker::connect_with_defaults().map_err(|error| explain(&error))?;
    docker.ping().await.map_err(|error| format!("no engine answers at DOCKER_HOST: {}", explain(&error)))?;
    if docker.inspect_image(&format!("{IMAGE}:{tag}")).await.is_ok() {
        return Ok(tag);
    }
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(IMAGE).tag(&tag).build();
    let import = docker.create_image(Some(options), Some(body_full(root(&image)?.into())), None);
    import.try_collect::<Vec<_>>().await.map_err(|error| explain(&error))?;
    Ok(tag)
}

/// The root of every container, as a tar.
fn root(image: &sepulcher::image::definition::Image) -> Result<Vec<u8>, String> {
    let store = MirrorArgs::default().store(&Quiet).map_err(|failure| failure.to_string())?;
    let packages = store.layer(image).map_err(|error| explain(&error))?;
    let files = Definitions::Embedded.tree(&image.name).map_err(|error| explain(&error))?;
    let mut tar = Vec::new();
    let layer = system::container(packages, files).map_err(|error| explain(&error))?;
    layer.write_tar(&mut tar, 0).map_err(|error| error.to_string())?;
    Ok(tar)
}
