use super::*;

fn entry(peer: &str) -> Entry {
    Entry {
        time: "2026-11-22T20:05:00Z".parse().unwrap(),
        who: Who::Uid(0),
        verb: Verb::Bond,
        peer: peer.parse().unwrap(),
        generation: 1,
        file_sha256: Some(Sha256Digest::of(peer.as_bytes())),
    }
}

/// A log to which each of `peers` was added by a command of its own.
fn log(peers: &[&str]) -> String {
    peers.iter().fold(String::new(), |log, peer| {
        let lines = End::of(log.as_bytes(), true).unwrap().lines(&[entry(peer)]);
        log + &lines
    })
}

fn peers(log: &Log) -> Vec<&str> {
    log.records.iter().map(|(record, _)| record.peer.as_str()).collect()
}

#[test]
fn records_follow_from_one_another_however_they_were_added() {
    let text = log(&["a", "b", "c"]);
    let read = Log::read(text.as_bytes()).unwrap();
    assert_eq!(peers(&read), ["a", "b", "c"]);
    assert_eq!(read.torn, [0; 0]);
    assert_eq!(End::of(b"", true).unwrap().lines(&["a", "b", "c"].map(entry)), text);
    assert!(
        text.starts_with("{\"seq\":1,\"time\":\"2026-11-22T20:05:00Z\",\"who\":\"uid 0\",\"verb\":\"bond\"")
    );
}

#[test]
fn no_line_can_be_changed_taken_out_doubled_or_swapped() {
    let text = log(&["a", "b", "c"]);
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let changed = text.replacen("\"generation\":1", "\"generation\":2", 1);
    assert_eq!(Log::read(changed.as_bytes()), Err(Broken { line: 2 }));
    for (order, line) in
        [(&[1, 2][..], 1), (&[0, 2], 2), (&[0, 0, 1, 2], 2), (&[1, 0, 2], 1), (&[0, 2, 1], 2)]
    {
        let text: String = order.iter().map(|index| lines[*index]).collect();
        assert_eq!(Log::read(text.as_bytes()), Err(Broken { line }), "{order:?}");
    }
    // Nor can a record be made into a torn line.
    let torn = text.replacen("\"seq\":2", "\"seq\"", 1);
    assert_eq!(Log::read(torn.as_bytes()), Err(Broken { line: 3 }));
}

#[test]
fn wherever_a_write_was_cut_off_the_log_goes_on_and_the_chain_holds() {
    let text = log(&["a", "b"]);
    let first = text.find('\n').unwrap() + 1;
    for cut in 0..=text.len() {
        let mut torn = text.as_bytes()[..cut].to_vec();
        let added = End::of(&torn, true).unwrap().lines(&[entry("c")]);
        torn.extend_from_slice(added.as_bytes());
        let log = Log::read(&torn).unwrap_or_else(|broken| panic!("cut at {cut}: {broken}"));
        let whole = |end: usize| cut >= end - 1;
        let mut expected = Vec::new();
        expected.extend(whole(first).then_some("a"));
        expected.extend(whole(text.len()).then_some("b"));
        expected.push("c");
        assert_eq!(peers(&log), expected, "cut at {cut}");
        let pieces = usize::from(![0, first - 1, first, text.len() - 1, text.len()].contains(&cut));
        assert_eq!(log.torn.len(), pieces, "cut at {cut}");
    }
}

#[test]
fn the_end_is_found_in_the_last_bytes_and_its_absence_is_told() {
    let text = log(&["a", "b"]);
    let tail = &text.as_bytes()[10..];
    assert_eq!(End::of(tail, false).unwrap().last.unwrap().0.peer.as_str(), "b");
    assert_eq!(End::of(b"rubbish\n", false), Err(NoEnd));
    assert_eq!(End::of(b"{\"seq\":1", true).unwrap(), End { last: None, torn: true });
}

#[test]
fn who_asks_reads_back_and_nobody_else_does() {
    for who in [Who::Uid(1000), Who::Peer("laptop".parse().unwrap()), Who::Console] {
        assert_eq!(who.to_string().parse(), Ok(who));
    }
    for text in ["", "uid", "uid -1", "peer", "peer A b", "console 1", "root"] {
        assert_eq!(text.parse::<Who>(), Err(Nobody), "{text:?}");
    }
}
