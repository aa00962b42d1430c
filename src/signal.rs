/// Ready when the process is asked to end: Ctrl-C, or SIGTERM on Unix.
///
/// If the signals can't be listened to it says so in the log and never is ready.
///
/// ```no_run
/// # async fn example(bus: polybus::Bus) -> polybus::Result<()> {
/// bus.run_until(polybus::shutdown_signal()).await
/// # }
/// ```
pub async fn shutdown_signal() {
    if let Err(error) = wait().await {
        tracing::error!(%error, "can't listen to signals: the service won't stop by one");
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
async fn wait() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn wait() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
