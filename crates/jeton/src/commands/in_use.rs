//! Whether an identity that is to be deleted is in use.

use jeton_core::{Clock, SystemClock};
use jeton_proto::v1::{self, identity_service_client::IdentityServiceClient};
use tonic::{Code, transport::Channel};

use super::shown;
use crate::exit::InUse;

/// Most users that are named.
const MOST_USERS_SHOWN: usize = 10;

/// Refuses where somebody was handed a token within so many days: he would be without.
pub(super) async fn refuse(
    client: &mut IdentityServiceClient<Channel>,
    name: String,
    days: u32,
) -> anyhow::Result<()> {
    let request = v1::GetIdentityRequest { name: name.clone() };
    let found = match client.get_identity(request).await {
        Ok(found) => found.into_inner(),
        // The deletion itself says so; one that is repeated finds nothing, and is done.
        Err(status) if status.code() == Code::NotFound => return Ok(()),
        Err(status) => return Err(status.into()),
    };
    let now = SystemClock.now().wall.as_secs();
    let since = now - i64::from(days) * 86_400;
    let lately = |used: &&v1::IdentityUse| used.last_use_time.is_some_and(|at| at.seconds >= since);
    let users: Vec<_> = found.uses.iter().filter(lately).collect();
    if users.is_empty() {
        return Ok(());
    }
    let lines = users.iter().take(MOST_USERS_SHOWN).map(|used| {
        let at = shown::time(used.last_use_time.as_ref()).unwrap_or_default();
        format!("\n  {} for {}, last at {at}", used.principal, used.target)
    });
    let more = users.len().saturating_sub(MOST_USERS_SHOWN);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    let text = format!(
        "{name} was used within the last {days} day(s):{}{more}\nrepeat with --yes to delete it all the same",
        lines.collect::<String>()
    );
    Err(InUse(text).into())
}
