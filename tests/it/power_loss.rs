//! What a loss of power takes of the files that Podman writes without waiting for the disk, and that its pod starts all
//! the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::podman::{Machine, machine};
use crate::support::{repository, sepulcher};

/// What is taken: the name of a layer is read again by whoever mounts it.
const STORAGE: &str = "var/lib/containers/storage/overlay";

/// As the unit of the pod does it, and what its start begins with. There is no systemd to ask for groups of processes.
const START: &str = "podman --cgroup-manager=cgroupfs pod create --replace --network=none --share-parent=false \
    --name=lychd --infra-name=lychd-infra; podman mount lychd-infra";

/// Layers on the disk.
fn layers(machine: &Machine) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(machine.kept().join(STORAGE)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.join("link").exists()).collect()
}

/// Empties every file below: its name had reached the disk, and nothing else of it.
fn empties(path: &Path) {
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => empties(&entry.path()),
            kind if kind.is_file() => fs::write(entry.path(), "").unwrap(),
            _ => (),
        }
    }
}

/// A unit of the machine; what it says.
fn images(machine: &Machine, verb: &str) -> String {
    let done = sepulcher().args(["images", verb, "--root"]).arg(machine.kept()).assert().success();
    String::from_utf8(done.get_output().stdout.clone()).unwrap()
}

#[test]
fn a_pod_whose_image_had_not_reached_the_disk_starts_with_one_made_anew() {
    let Some((machine, _)) = machine("a_pod_whose_image_had_not_reached_the_disk_starts_with_one_made_anew")
    else {
        return;
    };
    assert_eq!(images(&machine, "check"), "");
    machine.boot(START).unwrap();
    for layer in layers(&machine) {
        empties(&layer);
    }
    let said = machine
        .boot(START)
        .expect_err("by itself Podman does not notice: what is checked here is not needed");
    assert!(said.contains("storage/overlay"), "{said}");
    assert!(images(&machine, "check").contains("made or fetched anew"));
    machine.boot(START).unwrap();
}

#[test]
fn a_pod_whose_image_had_reached_the_disk_keeps_it_whatever_became_of_its_containers() {
    let Some((machine, _)) =
        machine("a_pod_whose_image_had_reached_the_disk_keeps_it_whatever_became_of_its_containers")
    else {
        return;
    };
    images(&machine, "check");
    machine.boot(START).unwrap();
    images(&machine, "settle");
    let settled = layers(&machine);
    machine.boot(START).unwrap();
    let all = layers(&machine);
    let mut added = all.difference(&settled);
    empties(added.next().expect("a new container has a layer of its own"));
    assert_eq!(added.next(), None);
    assert_eq!(images(&machine, "check"), "");
    machine.boot(START).unwrap();
    assert_eq!(layers(&machine).intersection(&settled).count(), 1, "the image is the one that was settled");
}

/// What the pod's unit does before its start, as it is rendered.
fn before() -> String {
    let unit = repository("tests/golden/lych/expected/usr/share/containers/systemd/lychd.pod");
    let unit = fs::read_to_string(unit).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStartPre=-/usr/bin/")).unwrap();
    format!("{line} || true")
}

#[test]
fn a_pod_whose_first_container_is_known_to_the_storage_alone_starts_all_the_same() {
    let Some((machine, _)) =
        machine("a_pod_whose_first_container_is_known_to_the_storage_alone_starts_all_the_same")
    else {
        return;
    };
    let known = machine.kept().join("var/lib/containers/storage/db.sql");
    let saved = machine.kept().join("db.sql");
    // What Podman knows before there is a pod comes back when there is one.
    machine.boot("podman info > /dev/null").unwrap();
    fs::copy(&known, &saved).unwrap();
    machine.boot(START).unwrap();
    fs::copy(&saved, &known).unwrap();
    let said =
        machine.boot(START).expect_err("by itself Podman does not notice: what is done before is not needed");
    assert!(said.contains("\"lychd-infra\" is already in use"), "{said}");
    let start = format!("{}; {START}", before());
    machine.boot(&start).unwrap();
    // And where all is as it should be, it takes nothing, and a pod that lost its power is replaced.
    machine.boot(&format!("{}; podman container exists lychd-infra", before())).unwrap();
    machine.boot(&start).unwrap();
    // A service with an image of its own is replaced by what starts it.
    let service = "podman create --replace --name=systemd-lychd-web $(podman images --quiet --filter dangling=false) /web";
    fs::copy(&known, &saved).unwrap();
    machine.boot(service).unwrap();
    fs::copy(&saved, &known).unwrap();
    machine.boot(service).unwrap();
}
