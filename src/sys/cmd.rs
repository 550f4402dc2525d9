//! Processes: output or an error that shows the command and the end of what it said.

use std::ffi::OsString;
use std::io;

/// A program that failed, with what it said last.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not start.
    #[error("cannot start {program}")]
    Start {
        /// Program name.
        program: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It ended with a failure.
    #[error("{command} failed with {status}{}", said(stderr))]
    Failed {
        /// Command line, for reading.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Last kibibyte of its standard error.
        stderr: String,
    },
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(":\n{stderr}") }
}

/// A command line: program and arguments.
#[derive(Debug, Clone)]
pub struct Command {
    argv: Vec<OsString>,
    stdin: Option<Vec<u8>>,
    environment: Vec<(OsString, OsString)>,
}

impl Command {
    /// A command of `program` without arguments.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { argv: vec![program.into()], stdin: None, environment: Vec::new() }
    }

    /// Program and arguments.
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }

    /// Environment variables that it sets.
    pub fn environment(&self) -> &[(OsString, OsString)] {
        &self.environment
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.argv.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.argv.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Gives bytes on standard input; without it there is none.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// The same command for a caller that handles the running process itself; bytes for standard input are not part of it.
    pub fn to_std(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The same command started by `launcher`, e.g. inside a network namespace.
    #[must_use]
    pub fn within(self, launcher: Command) -> Self {
        let Self { argv, stdin, environment } = self;
        let mut outer = launcher;
        outer.argv.extend(argv);
        outer.environment.extend(environment);
        outer.stdin = stdin.or(outer.stdin);
        outer
    }

    /// Becomes the program, with this process's input and outputs; returns only when it does not start.
    pub fn exec(&self) -> Error {
        use std::os::unix::process::CommandExt as _;
        let source = self.to_std().exec();
        Error::Start { program: self.argv[0].to_string_lossy().into_owned(), source }
    }

    /// Runs to the end and returns standard output.
    pub fn read(&self) -> Result<Vec<u8>, Error> {
        let output = self.output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let tail = output.stderr.len().saturating_sub(1024);
        Err(Error::Failed {
            command: self.to_string(),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr[tail..]).trim_end().to_owned(),
        })
    }

    /// Runs to the end and returns status and both outputs, whatever the status is.
    pub fn output(&self) -> Result<std::process::Output, Error> {
        let mut expression = duct::cmd(&self.argv[0], &self.argv[1..]);
        for (name, value) in &self.environment {
            expression = expression.env(name, value);
        }
        expression = match &self.stdin {
            Some(bytes) => expression.stdin_bytes(bytes.clone()),
            None => expression.stdin_null(),
        };
        expression
            .stdout_capture()
            .stderr_capture()
            .unchecked()
            .run()
            .map_err(|source| Error::Start { program: self.argv[0].to_string_lossy().into_owned(), source })
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, arg) in self.argv.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}", arg.to_string_lossy())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_returned_and_input_is_given() {
        assert_eq!(Command::new("cat").stdin(*b"words").read().unwrap(), b"words");
    }

    #[test]
    fn a_failure_shows_the_command_and_what_it_said() {
        let error = Command::new("sh").args(["-c", "echo why >&2; exit 3"]).read().unwrap_err();
        assert_eq!(error.to_string(), "sh -c echo why >&2; exit 3 failed with exit status: 3:\nwhy");
        assert!(
            Command::new("/nonexistent/program").read().unwrap_err().to_string().starts_with("cannot start")
        );
    }
}
