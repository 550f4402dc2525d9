//! What a person types: whole lines, bounded, of characters that can be printed.

use std::io::{self, Read};

/// The longest line that is kept, in bytes; the rest of a longer one is thrown away.
const LONGEST: usize = 512;
/// So many ends of input in a row are the end of the terminal.
const ENDS: u32 = 3;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A line without its end.
    Line(String),
    /// The key for the end of input: back to where one came from.
    Back,
    /// The terminal is gone.
    Gone,
}

/// Lines of a terminal.
pub struct Input<R> {
    source: R,
    buffer: [u8; 256],
    /// Bytes of the buffer that were not looked at yet.
    unread: std::ops::Range<usize>,
    ends: u32,
}

impl<R: Read> Input<R> {
    /// From where they are read.
    pub fn new(source: R) -> Self {
        Self { source, buffer: [0; 256], unread: 0..0, ends: 0 }
    }

    /// Waits for a line.
    pub fn line(&mut self) -> Answer {
        let mut line = Vec::new();
        loop {
            match self.byte() {
                Byte::End if self.ends < ENDS => return Answer::Back,
                Byte::End | Byte::Gone => return Answer::Gone,
                Byte::Typed(b'\n' | b'\r') => break,
                Byte::Typed(byte) if line.len() < LONGEST => line.push(byte),
                Byte::Typed(_) => {}
            }
        }
        let text = String::from_utf8_lossy(&line);
        Answer::Line(text.chars().filter(|typed| !typed.is_control()).collect::<String>().trim().to_owned())
    }

    fn byte(&mut self) -> Byte {
        while self.unread.is_empty() {
            match self.source.read(&mut self.buffer) {
                Ok(0) => {
                    self.ends += 1;
                    return Byte::End;
                }
                Ok(count) => {
                    self.ends = 0;
                    self.unread = 0..count;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Byte::Gone,
            }
        }
        self.unread.next().map_or(Byte::Gone, |at| Byte::Typed(self.buffer[at]))
    }
}

/// What one look at the terminal brings.
enum Byte {
    Typed(u8),
    End,
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(typed: &[u8]) -> Vec<Answer> {
        let mut input = Input::new(typed);
        let mut answers = Vec::new();
        while answers.last() != Some(&Answer::Gone) {
            answers.push(input.line());
        }
        answers
    }

    #[test]
    fn lines_are_trimmed_and_three_ends_of_input_are_the_end() {
        let line = |text: &str| Answer::Line(text.to_owned());
        let back = Answer::Back;
        assert_eq!(all(b" b \r\x1b[A\x03\n"), [line("b"), line("[A"), back.clone(), back, Answer::Gone]);
    }

    #[test]
    fn an_end_of_input_in_between_goes_back_and_the_next_line_counts() {
        struct Typed(Vec<&'static [u8]>);
        impl Read for Typed {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let next = if self.0.is_empty() {
                    return Err(io::ErrorKind::BrokenPipe.into());
                } else {
                    self.0.remove(0)
                };
                buffer[..next.len()].copy_from_slice(next);
                Ok(next.len())
            }
        }
        let mut input = Input::new(Typed(vec![b"", b"", b"h\n", b"", b"", b"s\n"]));
        let line = |text: &str| Answer::Line(text.to_owned());
        let answers: Vec<_> = (0..7).map(|_| input.line()).collect();
        let back = || Answer::Back;
        assert_eq!(answers, [back(), back(), line("h"), back(), back(), line("s"), Answer::Gone]);
    }

    proptest! {
        #[test]
        fn whatever_is_typed_is_bounded_and_printable(typed in proptest::collection::vec(any::<u8>(), 0..4000)) {
            for answer in all(&typed) {
                if let Answer::Line(line) = answer {
                    prop_assert!(line.len() <= 3 * LONGEST && !line.chars().any(char::is_control));
                }
            }
        }
    }
}
