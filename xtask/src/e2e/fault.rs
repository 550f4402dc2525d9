//! A fault of the hardware: one instruction of the agent is broken in the memory of the running machine.
//!
//! A sealed machine lets nobody in to kill its agent: there is no shell, and no credential of a firmware is taken. So
//! the agent dies as programs do whose memory goes bad, by a signal of the kernel and in the middle of its work.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Result;
use crate::vm::Running;

/// `mov eax, 286`: the number of `timerfd_settime`. The agent sets its alarm before it waits, and no other of our
/// programs does.
const SETS_ALARM: [u8; 5] = [0xb8, 0x1e, 0x01, 0, 0];
/// `syscall`, which follows soon.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// So many bytes of other registers may stand between the two.
const SOON: usize = 32;
/// `ud2`, which is no instruction.
const TRAP: [u8; 2] = [0x0f, 0x0b];
const PAGE: usize = 4096;
/// So much of the memory is looked at once.
const PIECE: usize = 1024 * PAGE;
/// How long the emulator may take for a command.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that breaks where it sets its alarm.
pub struct Fault {
    debugger: PathBuf,
    /// Where in the machine's memory.
    places: Vec<u64>,
}

impl Fault {
    /// Breaks `program` in a machine that was powered on with a debugger's socket.
    pub fn inflict(running: &Running, program: &Path, debugger: &Path) -> Result<Self> {
        let (page, within) = page_of(&fs::read(program)?)?;
        let pages = find(&running.memory()?, &page)?;
        if pages.is_empty() {
            return Err("the agent's code is not in the machine's memory".into());
        }
        let places = pages.into_iter().map(|at| at + within as u64).collect();
        let fault = Self { debugger: debugger.to_owned(), places };
        fault.write(TRAP)?;
        Ok(fault)
    }

    /// Makes it whole again.
    pub fn mend(self) -> Result<()> {
        self.write([SETS_ALARM[0], SETS_ALARM[1]])
    }

    /// Through the debugger, so that the emulator notices that code has changed. The machine stands still meanwhile.
    fn write(&self, bytes: [u8; 2]) -> Result<()> {
        let mut debugger = UnixStream::connect(&self.debugger)?;
        debugger.set_read_timeout(Some(PATIENCE))?;
        ask(&mut debugger, "Qqemu.PhyMemMode:1")?;
        for place in &self.places {
            ask(&mut debugger, &format!("M{place:x},2:{:02x}{:02x}", bytes[0], bytes[1]))?;
        }
        ask(&mut debugger, "D")
    }
}

/// The page of a program's file in which it sets its alarm, and where in it.
fn page_of(program: &[u8]) -> Result<(Vec<u8>, usize)> {
    let is_call = |code: &[u8]| code.starts_with(&SETS_ALARM) && code.windows(2).any(|two| two == SYSCALL);
    let found = program.windows(SOON).enumerate().filter(|(_, code)| is_call(code));
    let places: Vec<usize> = found.map(|(at, _)| at).collect();
    let [at] = places[..] else {
        return Err(format!("the program sets its alarm in {} places, not in one", places.len()).into());
    };
    let start = at - at % PAGE;
    let page = program.get(start..start + PAGE).ok_or("the program ends too soon")?;
    Ok((page.to_vec(), at % PAGE))
}

/// Where in the memory such pages are.
fn find(memory: &File, page: &[u8]) -> Result<Vec<u64>> {
    let mut piece = vec![0; PIECE];
    let mut found = Vec::new();
    for start in (0..memory.metadata()?.len()).step_by(PIECE) {
        memory.read_exact_at(&mut piece, start)?;
        let same = piece.chunks(PAGE).zip((start..).step_by(PAGE)).filter(|(other, _)| *other == page);
        found.extend(same.map(|(_, at)| at));
    }
    Ok(found)
}

/// One command of the debugger's protocol, which must be answered by `OK`.
fn ask(debugger: &mut UnixStream, command: &str) -> Result<()> {
    let sum = command.bytes().fold(0_u8, u8::wrapping_add);
    debugger.write_all(format!("${command}#{sum:02x}").as_bytes())?;
    let mut answer = Vec::new();
    // `+`, then a packet of the same form.
    while answer.iter().rev().nth(2) != Some(&b'#') {
        let mut byte = [0];
        debugger.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    debugger.write_all(b"+")?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if answer.contains("$OK#") {
        Ok(())
    } else {
        Err(format!("the emulator answers {answer} to {command}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_found_in_the_program_and_its_page_in_the_memory() {
        let mut program = vec![7; 3 * PAGE];
        assert!(page_of(&program).is_err(), "it is nowhere");
        program[PAGE + 9..PAGE + 14].copy_from_slice(&SETS_ALARM);
        assert!(page_of(&program).is_err(), "a number alone is no call");
        program[PAGE + 19..PAGE + 21].copy_from_slice(&SYSCALL);
        let (page, within) = page_of(&program).unwrap();
        assert_eq!(within, 9);
        let mut memory = tempfile::tempfile().unwrap();
        memory.write_all(&vec![7; PIECE + PAGE]).unwrap();
        memory.write_all(&page).unwrap();
        memory.set_len(2 * PIECE as u64).unwrap();
        assert_eq!(find(&memory, &page).unwrap(), [(PIECE + PAGE) as u64]);
        program.copy_within(PAGE..2 * PAGE, 0);
        assert!(page_of(&program).is_err(), "it is in two places");
    }
}
