//! The arguments, as `runsc` and `runc` have them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Run unmodified Linux programs in a sandbox with a kernel of its own.
///
/// `quicksand do CMD…` runs a command on this machine's own files, which it can read and not change. `quicksand run`,
/// `create`, `start` and the others take OCI bundles, as `runc` does; container engines use them.
#[derive(Debug, Parser)]
#[command(name = "quicksand", disable_version_flag = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Where the state of containers is kept [default: /run/quicksand, or $XDG_RUNTIME_DIR/quicksand]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Append messages to this file
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How messages are written to the log
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Log more
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub debug: bool,
    /// Ask systemd for cgroups (not supported: the cgroup file system is used)
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub systemd_cgroup: bool,
    /// Leave cgroups alone
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub ignore_cgroups: bool,
    /// What runs the sandbox's code
    #[arg(long, global = true, value_enum, default_value = "auto")]
    pub platform: PlatformName,
    /// `none`: a loopback of its own. `host`: the caller's. `sandbox`: what the container's spec says
    #[arg(long, global = true, value_enum, default_value = "sandbox")]
    pub network: Network,
    /// Where changes to the root go: `memory` keeps them in the sandbox, `none` lets them through to the host
    #[arg(long, global = true, value_enum, default_value = "memory")]
    pub overlay: Overlay,
    /// Let the sandbox open files of its root by itself, rather than through a file server process
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub directfs: bool,
    /// Log every system call
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub strace: bool,
    /// Where `--strace` lines go, instead of standard error
    #[arg(long, global = true, value_name = "FILE")]
    pub strace_log: Option<PathBuf>,
    /// Accepted for compatibility with other runtimes
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub rootless: Option<String>,
    /// Accepted for compatibility with other runtimes
    #[arg(long, global = true, hide = true, value_name = "PATH")]
    pub criu: Option<PathBuf>,
    /// Write the milestones of a start to this descriptor, as JSON lines
    #[arg(long, global = true, hide = true, value_name = "N")]
    pub timeline_fd: Option<i32>,
    /// Print the version
    #[arg(long, short = 'v')]
    pub version: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlatformName {
    Auto,
    Kvm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Network {
    None,
    Host,
    Sandbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Overlay {
    Memory,
    None,
}

/// Commands, in the order in which a container meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    Do(DoArgs),
    Run(RunArgs),
    Create(CreateArgs),
    Start(IdArgs),
    State(IdArgs),
    Exec(Box<ExecArgs>),
    Kill(KillArgs),
    Ps(PsArgs),
    Wait(IdArgs),
    Pause(IdArgs),
    Resume(IdArgs),
    Delete(DeleteArgs),
    List(ListArgs),
    Spec(SpecArgs),
    Features,
    Doctor(DoctorArgs),
}

/// Run a command on this machine's own files: readable, never changed
#[derive(Args, Debug)]
pub struct DoArgs {
    /// Working directory [default: the current one]
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// Add a variable to the environment, which is otherwise ours
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// The directory that becomes `/`
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub rootfs: PathBuf,
    /// Run as this user
    #[arg(long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Create a container, start it, wait for it and delete it
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub create: CreateArgs,
    /// Return when the container runs
    #[arg(long, short)]
    pub detach: bool,
    /// Keep the container's state when it has ended
    #[arg(long)]
    pub keep: bool,
}

/// Create a container that `start` will run
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// The directory that holds config.json
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// The Unix socket that receives the terminal's other end
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Write the sandbox's process id here
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Accepted for compatibility with other runtimes
    #[arg(long, hide = true)]
    pub no_pivot: bool,
    /// Accepted for compatibility with other runtimes
    #[arg(long, hide = true)]
    pub no_new_keyring: bool,
    /// Pass this many further descriptors to the container (none can be)
    #[arg(long, hide = true, default_value = "0")]
    pub preserve_fds: u32,
    /// A name for the container, unique below `--root`
    pub id: String,
}

/// The commands that take nothing but a container
#[derive(Args, Debug)]
pub struct IdArgs {
    pub id: String,
}

/// Run a further program in a container
#[derive(Args, Debug)]
pub struct ExecArgs {
    /// The process as an OCI `process` object, instead of a command
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Give it a terminal
    #[arg(long, short)]
    pub tty: bool,
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Return when the program runs
    #[arg(long, short)]
    pub detach: bool,
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    #[arg(long)]
    pub cwd: Option<String>,
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    #[arg(long, short, value_name = "CAP")]
    pub cap: Vec<String>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_new_privs: Option<bool>,
    /// Accepted for compatibility with other runtimes
    #[arg(long, hide = true)]
    pub cgroup: Vec<String>,
    /// Accepted for compatibility with other runtimes
    #[arg(long, hide = true)]
    pub ignore_paused: bool,
    #[arg(long, hide = true, default_value = "0")]
    pub preserve_fds: u32,
    pub id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Send a signal to a container
#[derive(Args, Debug)]
pub struct KillArgs {
    /// Send it to every process of the container
    #[arg(long, short)]
    pub all: bool,
    /// Send it to this process of the container (its number inside)
    #[arg(long)]
    pub pid: Option<i32>,
    pub id: String,
    /// A name (TERM, SIGTERM) or a number
    #[arg(default_value = "TERM", allow_hyphen_values = true)]
    pub signal: String,
}

/// List the processes of a container
#[derive(Args, Debug)]
pub struct PsArgs {
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: ListFormat,
    pub id: String,
    /// Accepted for compatibility with other runtimes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub ps_options: Vec<String>,
}

/// Delete a container that has stopped
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// Kill it first where it runs; no error where it does not exist
    #[arg(long, short)]
    pub force: bool,
    #[arg(required = true)]
    pub ids: Vec<String>,
}

/// List containers
#[derive(Args, Debug)]
pub struct ListArgs {
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: ListFormat,
    /// Ids only
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    Table,
    Json,
}

/// Write a config.json to start from
#[derive(Args, Debug)]
pub struct SpecArgs {
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// What the container runs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, default_value = "sh", value_name = "CMD")]
    pub command: Vec<String>,
}

/// Say what this machine offers, and what to do about what it lacks
#[derive(Args, Debug)]
pub struct DoctorArgs {
    #[arg(long, short, value_enum, default_value = "text")]
    pub format: DoctorFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    Text,
    Json,
}

/// Reads the command line; a bad one ends the process with the code of our own errors.
pub fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|e| {
        // Nobody to tell where standard error is closed.
        let _ = e.print();
        std::process::exit(if e.use_stderr() { i32::from(crate::FAILED) } else { 0 })
    })
}

impl Global {
    /// The directory of all containers' state.
    pub fn state_root(&self) -> PathBuf {
        if let Some(root) = &self.root {
            return root.clone();
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if !rustix::process::geteuid().is_root() => PathBuf::from(dir).join("quicksand"),
            _ => PathBuf::from("/run/quicksand"),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_arguments_fit_together() {
        <super::Cli as clap::CommandFactory>::command().debug_assert();
    }
}
