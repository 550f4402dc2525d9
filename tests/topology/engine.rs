//! The container engine, and the images that containers are made from.

use std::collections::BTreeSet;
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
use testcontainers::bollard::query_parameters::{
    CreateImageOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use testcontainers::bollard::{Docker, body_full};

/// An image in the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name there.
    pub name: &'static str,
    /// The digest of its lock.
    pub tag: String,
}

/// The label of every container, and in it whose it is.
pub const LABEL: &str = "sepulcher-test";

/// The value of the label: a process, and the namespace in which its number means that process.
pub fn run_of(process: u32) -> String {
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap();
    format!("{process} {}", space.display())
}

/// The process that a label names, if it is one of ours that is no more.
fn dead(label: &str) -> Option<u32> {
    let process = label.split(' ').next()?.parse().ok()?;
    (label == run_of(process) && !Path::new(&format!("/proc/{process}")).exists()).then_some(process)
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
    if !Path::new("/dev/net/tun").exists() {
        return Err("there is no /dev/net/tun".into());
    }
    PRUNED.clone()
}

/// Leftovers of runs that were killed are gone.
static PRUNED: LazyLock<Result<(), String>> = LazyLock::new(|| run(prune()));

/// Removes containers and networks of dead runs. Somebody else may do the same at the same time.
async fn prune() -> Result<(), String> {
    let docker = Docker::connect_with_defaults().map_err(|error| explain(&error))?;
    docker.ping().await.map_err(|error| format!("no engine answers at DOCKER_HOST: {}", explain(&error)))?;
    let all = ListContainersOptionsBuilder::new().all(true).build();
    let found = docker.list_containers(Some(all)).await.map_err(|error| explain(&error))?;
    let mut gone = BTreeSet::new();
    for container in found {
        let label = container.labels.and_then(|labels| dead(labels.get(LABEL)?));
        let (Some(process), Some(id)) = (label, container.id) else { continue };
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        absent(docker.remove_container(&id, Some(options)).await)?;
        gone.insert(process);
    }
    for network in docker.list_networks(None).await.map_err(|error| explain(&error))? {
        let name = network.name.unwrap_or_default();
        if gone.iter().any(|process| name.starts_with(&format!("sepulcher-{process}-"))) {
            absent(docker.remove_network(&name).await)?;
        }
    }
    if !gone.is_empty() {
        eprintln!("removed what was left of {} dead runs", gone.len());
    }
    Ok(())
}

/// What is not there, or is just being removed, needs not be removed.
fn absent(removed: Result<(), Error>) -> Result<(), String> {
    match removed {
        Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
        result => result.map_err(|error| explain(&error)),
    }
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
