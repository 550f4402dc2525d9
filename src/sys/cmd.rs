//! Processes: output or an error that shows the command and the end of what it said.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Duration;

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
    /// It did not end in time, and was ended.
    #[error("{command} did not end in {} s", limit.as_secs())]
    Late {
        /// Command line, for reading.
        command: String,
        /// How long it had.
        limit: Duration,
    },
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(":\n{stderr}") }
}

/// What a program sees of this process's environment, besides the variables that its command sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inherits {
    /// All of it.
    All,
    /// What does not steer the dynamic loader.
    AllButLoader,
    /// Where programs and temporary files are, in the locale `C`.
    Places,
}

impl Inherits {
    fn takes(self, name: &OsStr) -> bool {
        match self {
            Inherits::All => true,
            Inherits::AllButLoader => !name.as_encoded_bytes().starts_with(b"LD_"),
            Inherits::Places => name == "PATH" || name == "TMPDIR",
        }
    }
}

/// A command line: program and arguments.
#[derive(Debug, Clone)]
pub struct Command {
    argv: Vec<OsString>,
    stdin: Option<Vec<u8>>,
    environment: Vec<(OsString, OsString)>,
    inherits: Inherits,
}

impl Command {
    /// A command of `program` without arguments.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { argv: vec![program.into()], stdin: None, environment: Vec::new(), inherits: Inherits::All }
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

    /// Hides this process's environment: the program sees `PATH`, `TMPDIR`, `LC_ALL=C` and what the command sets,
    /// so that its output cannot depend on who runs it.
    #[must_use]
    pub fn isolated(mut self) -> Self {
        self.inherits = Inherits::Places;
        self
    }

    /// Shows this process's environment, but for what steers the dynamic loader (`LD_…`): for a person who runs
    /// the program.
    #[must_use]
    pub fn with_callers_environment(mut self) -> Self {
        self.inherits = Inherits::AllButLoader;
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
        command.args(&self.argv[1..]).env_clear().envs(self.all_variables());
        command
    }

    /// The whole environment that the program sees.
    fn all_variables(&self) -> BTreeMap<OsString, OsString> {
        let locale = (self.inherits == Inherits::Places).then(|| ("LC_ALL".into(), "C".into()));
        let inherited = std::env::vars_os().filter(|(name, _)| self.inherits.takes(name));
        inherited.chain(locale).chain(self.environment.iter().cloned()).collect()
    }

    /// The same command started by `launcher`, e.g. inside a network namespace. What one of the two must not see,
    /// neither sees.
    #[must_use]
    pub fn within(self, launcher: Command) -> Self {
        let Self { argv, stdin, environment, inherits } = self;
        let mut outer = launcher;
        outer.argv.extend(argv);
        outer.environment.extend(environment);
        outer.stdin = stdin.or(outer.stdin);
        if inherits != Inherits::All && outer.inherits != Inherits::Places {
            outer.inherits = inherits;
        }
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
        self.checked(self.output()?)
    }

    /// The same, but ends the program when it takes longer than `limit`.
    pub fn read_within(&self, limit: Duration) -> Result<Vec<u8>, Error> {
        let start = |source| Error::Start { program: self.argv[0].to_string_lossy().into_owned(), source };
        let handle = self.expression().start().map_err(start)?;
        if let Some(output) = handle.wait_timeout(limit).map_err(start)? {
            return self.checked(output.clone());
        }
        handle.kill().map_err(start)?;
        Err(Error::Late { command: self.to_string(), limit })
    }

    fn checked(&self, output: std::process::Output) -> Result<Vec<u8>, Error> {
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
        let run = self.expression().run();
        run.map_err(|source| Error::Start { program: self.argv[0].to_string_lossy().into_owned(), source })
    }

    fn expression(&self) -> duct::Expression {
        let mut expression = duct::cmd(&self.argv[0], &self.argv[1..]).full_env(self.all_variables());
        expression = match &self.stdin {
            Some(bytes) => expression.stdin_bytes(bytes.clone()),
            None => expression.stdin_null(),
        };
        expression.stdout_capture().stderr_capture().unchecked()
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
    fn a_program_that_takes_too_long_is_ended() {
        let late = Command::new("sleep").arg("60").read_within(Duration::from_millis(50)).unwrap_err();
        assert_eq!(late.to_string(), "sleep 60 did not end in 0 s");
        assert_eq!(Command::new("echo").read_within(Duration::from_secs(60)).unwrap(), b"\n");
    }

    #[test]
    fn a_failure_shows_the_command_and_what_it_said() {
        let error = Command::new("sh").args(["-c", "echo why >&2; exit 3"]).read().unwrap_err();
        assert_eq!(error.to_string(), "sh -c echo why >&2; exit 3 failed with exit status: 3:\nwhy");
        assert!(
            Command::new("/nonexistent/program").read().unwrap_err().to_string().starts_with("cannot start")
        );
    }

    /// Names that `env` sees; the test's own process has `CARGO_MANIFEST_DIR`.
    fn seen(command: &Command) -> Vec<String> {
        let by_output = command.read().unwrap();
        let by_std = command.to_std().output().unwrap().stdout;
        assert_eq!(by_output, by_std);
        let text = String::from_utf8(by_output).unwrap();
        text.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect()
    }

    #[test]
    fn an_isolated_program_sees_places_its_locale_and_what_it_is_given() {
        let env = Command::new("env").env("GIVEN", "1");
        assert!(seen(&env).iter().any(|name| name == "CARGO_MANIFEST_DIR"));
        for isolated in [
            env.clone().isolated(),
            env.clone().isolated().within(Command::new("env")),
            env.clone().within(Command::new("env").isolated()),
        ] {
            let seen = seen(&isolated);
            assert!(seen.iter().any(|name| name == "GIVEN") && seen.iter().any(|name| name == "LC_ALL"));
            let known = ["PATH", "TMPDIR", "LC_ALL", "GIVEN"];
            assert!(seen.iter().all(|name| known.contains(&name.as_str())), "{seen:?}");
        }
    }

    #[test]
    fn a_person_hands_on_all_but_what_steers_the_loader() {
        for (name, taken) in
            [("LD_PRELOAD", false), ("LD_LIBRARY_PATH", false), ("TZ", true), ("LDFLAGS", true)]
        {
            assert_eq!(Inherits::AllButLoader.takes(OsStr::new(name)), taken, "{name}");
        }
        let env = Command::new("env").with_callers_environment();
        assert!(seen(&env).iter().any(|name| name == "CARGO_MANIFEST_DIR"));
    }
}
