//! Being told to stop: by SIGTERM, or by SIGINT (Ctrl-C).

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled by the first signal, from now on. A second one ends the process at once, whatever it is still waiting for.
pub(crate) fn on_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let told = stop.clone();
    // It ends with the runtime.
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        told.cancel();
        let signal = next(&mut terminate, &mut interrupt).await;
        // As the shell says it of one that a signal ended.
        std::process::exit(128 + signal.as_raw_value())
    });
    Ok(stop)
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> SignalKind {
    tokio::select! {
        _ = terminate.recv() => SignalKind::terminate(),
        _ = interrupt.recv() => SignalKind::interrupt(),
    }
}
