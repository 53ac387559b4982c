//! How a program ends.

use std::fmt;

use stowage_shared::contract::ExitCode;

/// An error that ends the program, with the exit code that tells its supervisor what to make of it.
#[derive(Debug)]
pub struct Fault {
    /// What the process exits with.
    pub code: ExitCode,
    /// What failed, on what, and the next step.
    pub error: anyhow::Error,
}

impl Fault {
    /// It will fail again until somebody changes the configuration.
    pub fn config(error: impl Into<anyhow::Error>) -> Self {
        Self { code: ExitCode::Config, error: error.into() }
    }

    /// Something that it needs is not there, or went away.
    pub fn unavailable(error: impl Into<anyhow::Error>) -> Self {
        Self { code: ExitCode::Unavailable, error: error.into() }
    }

    /// A right is missing.
    pub fn no_permission(error: impl Into<anyhow::Error>) -> Self {
        Self { code: ExitCode::NoPermission, error: error.into() }
    }

    /// A defect of ours.
    pub fn software(error: impl Into<anyhow::Error>) -> Self {
        Self { code: ExitCode::Software, error: error.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

/// Logs what ended the program and gives its exit code.
pub fn exit(result: Result<(), Fault>) -> std::process::ExitCode {
    match result {
        Ok(()) => {
            tracing::info!("Ended as asked.");
            ExitCode::Success.into()
        }
        Err(fault) => {
            tracing::error!(error = %fault, exit_code = fault.code as u8, "Cannot go on.");
            fault.code.into()
        }
    }
}
