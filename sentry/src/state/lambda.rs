//! The Lambda Runtime API between its record and itself.

use std::sync::Arc;

use quicksand_checkpoint::Image;

use super::records as rec;
use super::restore::RestoreError;
use crate::kernel::Container;
use crate::net::lambda::{RuntimeApi, Saved, SavedConnection};

/// No event is delivered as long as this lives.
pub(super) struct Frozen<'a>(&'a RuntimeApi);

impl Frozen<'_> {
    pub(super) fn new(api: &RuntimeApi) -> Frozen<'_> {
        api.freeze();
        Frozen(api)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.thaw();
    }
}

pub(super) fn record(api: &RuntimeApi) -> rec::Lambda {
    let saved = api.saved();
    let connection = |(id, live): (u64, SavedConnection)| rec::LambdaConnection {
        id,
        input: live.input,
        output: live.output,
        poll: live.poll,
        closing: live.closing,
        continued: live.continued,
        shut_read: live.shut_read,
        shut_write: live.shut_write,
        port: live.port,
    };
    rec::Lambda {
        address: saved.address,
        port: saved.port,
        function_arn: saved.function_arn,
        connections: saved.connections.into_iter().map(connection).collect(),
        polls: saved.polls,
        running: saved.running,
    }
}

/// Gives the container the API that it had, which delivers nothing yet.
pub(super) fn restore(container: &Arc<Container>, image: &Image) -> Result<(), RestoreError> {
    if !image.has_section(rec::LAMBDA) {
        return Ok(());
    }
    let record: rec::Lambda = image.section(rec::LAMBDA)?.read()?;
    let connection = |live: rec::LambdaConnection| {
        let saved = SavedConnection {
            input: live.input,
            output: live.output,
            poll: live.poll,
            closing: live.closing,
            continued: live.continued,
            shut_read: live.shut_read,
            shut_write: live.shut_write,
            port: live.port,
        };
        (live.id, saved)
    };
    let saved = Saved {
        address: record.address,
        port: record.port,
        function_arn: record.function_arn,
        connections: record.connections.into_iter().map(connection).collect(),
        polls: record.polls,
        running: record.running,
    };
    let api = RuntimeApi::restored(&saved)
        .map_err(|what| RestoreError::Record(format!("the Runtime API: {what}")))?;
    if !container.serve_runtime_api(api) {
        return Err(RestoreError::Record("the container has a Runtime API already".into()));
    }
    Ok(())
}
