//! The container engine, and the images that containers are made from.

use std::path::Path;
use std::sync::LazyLock;

use futures_util::TryStreamExt as _;
use sepulcher::cli::store::MirrorArgs;
use sepulcher::image::definition::{self, Definitions};
use sepulcher::image::fetch::Quiet;
use sepulcher::image::system;
use sepulcher::tether::explain;
use sepulcher::tree::Tree;
use testcontainers::bollard::errors::Error;
use testcontainers::bollard::models::NetworkConnectRequest;
use testcontainers::bollard::query_parameters::{CreateImageOptionsBuilder, KillContainerOptionsBuilder};
use testcontainers::bollard::{Docker, body_full};

/// An image in the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name there.
    pub name: &'static str,
    /// The digest of its lock.
    pub tag: String,
}

/// What every machine is made from, once the engine has it.
static MACHINE: LazyLock<Result<Image, String>> =
    LazyLock::new(|| ready().and_then(|()| run(imported("sepulcher-topology", "tools-topology", &[]))));

/// The next one: another image with another root.
static NEXT: LazyLock<Result<Image, String>> = LazyLock::new(|| {
    let release = [("usr/share/release", "2\n")];
    ready().and_then(|()| run(imported("sepulcher-topology-next", "tools-topology", &release)))
});

/// The proxy as the appliance runs it, once the engine has it.
static VEIL: LazyLock<Result<Image, String>> =
    LazyLock::new(|| ready().and_then(|()| run(imported("sepulcher-veil", "veil", &[]))));

fn ready() -> Result<(), String> {
    if std::env::var_os("DOCKER_HOST").is_none() {
        return Err("DOCKER_HOST names no container engine: `cargo xtask topology` starts one".into());
    }
    if Path::new("/dev/net/tun").exists() { Ok(()) } else { Err("there is no /dev/net/tun".into()) }
}

fn run<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(work)
}

/// The image that takes the place of the machines'.
pub fn next() -> &'static Image {
    NEXT.as_ref().unwrap()
}

/// The proxy's image.
pub fn veil() -> &'static Image {
    VEIL.as_ref().unwrap()
}

/// Plugs a running container into one more network.
pub fn plug(container: &str, network: &str) {
    let request = NetworkConnectRequest { container: container.to_owned(), endpoint_config: None };
    let plugged = async {
        let docker = Docker::connect_with_defaults().map_err(|error| explain(&error))?;
        docker.connect_network(network, request).await.map_err(|error| explain(&error))
    };
    run(plugged).unwrap();
}

/// Kills a container's program with SIGKILL, of which it hears nothing. One that does not run stays as it is.
pub fn kill(container: &str) {
    let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
    let killed = async {
        let docker = Docker::connect_with_defaults().map_err(|error| explain(&error))?;
        match docker.kill_container(container, Some(options)).await {
            Err(Error::DockerResponseServerError { status_code: 409, .. }) => Ok(()),
            result => result.map_err(|error| explain(&error)),
        }
    };
    run(killed).unwrap();
}

/// The machines' image, or `None` when the test cannot run here: then that is said, and fails where it has to
/// (`CI` is set).
pub fn machine(test: &str) -> Option<&'static Image> {
    match &*MACHINE {
        Ok(image) => Some(image),
        Err(missing) => {
            assert!(std::env::var_os("CI").is_none(), "{test} cannot run: {missing}");
            eprintln!("SKIPPED {test}: {missing}");
            None
        }
    }
}

/// Makes the image out of locked packages, and of more files with their texts, unless the engine has it.
async fn imported(name: &'static str, definition: &str, more: &[(&str, &str)]) -> Result<Image, String> {
    let packages = Definitions::Embedded.image(definition).map_err(|error| explain(&error))?;
    let tag = packages.digest().to_string()[..16].to_owned();
    let docker = Docker::connect_with_defaults().map_err(|error| explain(&error))?;
    docker.ping().await.map_err(|error| format!("no engine answers at DOCKER_HOST: {}", explain(&error)))?;
    if docker.inspect_image(&format!("{name}:{tag}")).await.is_err() {
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(name).tag(&tag).build();
        let import = docker.create_image(Some(options), Some(body_full(root(&packages, more)?.into())), None);
        import.try_collect::<Vec<_>>().await.map_err(|error| explain(&error))?;
    }
    Ok(Image { name, tag })
}

/// The root of its containers, as a tar.
fn root(image: &definition::Image, more: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let store = MirrorArgs::default().store(&Quiet).map_err(|failure| failure.to_string())?;
    let packages = store.layer(image).map_err(|error| explain(&error))?;
    let mut files = Definitions::Embedded.tree(&image.name).map_err(|error| explain(&error))?;
    let mut tree = Tree::default();
    for (path, text) in more {
        tree.file(*path, *text).map_err(|error| explain(&error))?;
    }
    files.merge(tree.into());
    let mut tar = Vec::new();
    let layer = system::container(packages, files).map_err(|error| explain(&error))?;
    layer.write_tar(&mut tar, 0).map_err(|error| error.to_string())?;
    Ok(tar)
}
