//! `pillion demo`: the whole story on one machine, with real processes and real traffic.
//!
//! A registry, three instances of a small echo service behind sidecars, and a client with a sidecar of its own. The story
//! balances, shifts a canary, kills an instance, stops the registry, and counts: every claim is checked on what the
//! client saw, and nothing is claimed that was not seen.

mod echo;
mod fleet;
mod load;
mod screen;

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use fleet::{Fleet, FleetError};
use load::{Load, Tally};
use screen::Screen;

pub use echo::serve as serve_echo;

/// How long each chapter's traffic is watched.
const CHAPTER: Duration = Duration::from_secs(5);
/// Between two pictures of the traffic.
const FRAME: Duration = Duration::from_millis(500);

/// The share of requests, in percent, that the canary is given, and how far the count may be off.
const CANARY_PERCENT: f64 = 10.0;
const CANARY_TOLERANCE: f64 = 4.0;

const CANARY: &str = "\
kind: Service
name: echo
ports: [{port: 80, protocol: http}]
subsets: {echo-v1: {version: v1}, echo-v2: {version: v2}}
---
kind: HTTPRoute
name: canary
hostnames: [echo]
rules:
  - backendRefs:
      - {name: echo-v1, port: 80, weight: 90}
      - {name: echo-v2, port: 80, weight: 10}
";

/// One thing the demo says, and whether it was so.
struct Claim {
    text: String,
    held: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Fleet(#[from] FleetError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Tells the story. True when every claim held. Without `once`, the mesh stays up afterwards until Ctrl-C.
pub async fn run(once: bool) -> Result<bool, DemoError> {
    let mut screen = Screen::new();
    screen.chapter(
        "Starting a registry, three instances behind sidecars, and a client behind its own",
    );
    let mut fleet = Fleet::start().await?;
    screen.say(&format!("registry   {}", fleet.registry_url()));
    for instance in fleet.instances() {
        screen.say(&format!(
            "{}     app {}  sidecar {}",
            instance.name, instance.app, instance.sidecar
        ));
    }
    screen.say(&format!(
        "client     http_proxy=http://{} curl http://echo/",
        fleet.client_proxy()
    ));
    let load = Load::start(fleet.client_proxy());
    let mut story = Story {
        screen,
        load,
        counted: Tally::default(),
        claims: Vec::new(),
    };
    let told = story.tell(&mut fleet).await;
    let total = story.load.tally();
    story.load.stop().await;
    let held = story.summary(total);
    told?;
    if !once && held {
        story.screen.say(
            "The mesh is still up. Try the client line above in another terminal; Ctrl-C ends it.",
        );
        tokio::signal::ctrl_c().await?;
    }
    fleet.stop().await;
    Ok(held)
}

struct Story {
    screen: Screen,
    load: Load,
    /// What had come when failures were last counted: none is left out between two chapters.
    counted: Tally,
    claims: Vec<Claim>,
}

impl Story {
    async fn tell(&mut self, fleet: &mut Fleet) -> Result<(), DemoError> {
        self.screen
            .chapter("Requests are balanced over the three instances");
        let seen = self.watch(CHAPTER).await;
        let least = fleet
            .instances()
            .iter()
            .map(|instance| seen.share(&instance.name))
            .fold(100.0, f64::min);
        self.claim(
            format!("each instance got its part: the least {least:.0} %"),
            least >= 10.0,
        );
        self.claim_no_failure("while balancing");

        self.screen
            .chapter("A canary: one document gives version v2 (echo-3) a tenth of the traffic");
        fleet.apply(CANARY).await?;
        let seen = self.watch(CHAPTER).await;
        let share = seen.share("echo-3");
        let close = (share - CANARY_PERCENT).abs() <= CANARY_TOLERANCE;
        self.claim(
            format!(
                "v2 got {share:.1} % of {} requests (wanted {CANARY_PERCENT} %)",
                seen.total()
            ),
            close,
        );
        self.claim_no_failure("while the route changed");

        self.screen
            .chapter("Killing echo-1 with SIGKILL under load, its sidecar too");
        fleet.kill("echo-1").await;
        self.watch(CHAPTER).await;
        self.claim_no_failure("while an instance died");
        let rest = self.watch(FRAME * 2).await;
        self.claim(
            "nothing is sent to it any more".to_owned(),
            rest.share("echo-1") == 0.0,
        );

        self.screen
            .chapter("Stopping the registry: sidecars go on with what they know");
        fleet.stop_registry().await;
        self.watch(CHAPTER).await;
        self.claim_no_failure("without a registry");
        Ok(())
    }

    /// Shows the traffic for a while; what it was.
    async fn watch(&mut self, length: Duration) -> Tally {
        let before = self.load.tally();
        let end = Instant::now() + length;
        while Instant::now() < end {
            let frame_start = self.load.tally();
            tokio::time::sleep(FRAME).await;
            let frame = self.load.tally().since(&frame_start);
            self.screen
                .frame(&frame, FRAME, &self.load.tally().since(&before));
        }
        self.screen.end_frames();
        self.load.tally().since(&before)
    }

    fn claim(&mut self, text: String, held: bool) {
        self.screen.claim(&text, held);
        self.claims.push(Claim { text, held });
    }

    fn claim_no_failure(&mut self, when: &str) {
        let now = self.load.tally();
        let seen = now.since(&self.counted);
        self.counted = now;
        let text = match &seen.last_failure {
            Some(failure) if seen.failed > 0 => {
                format!(
                    "{} of {} requests failed {when}: {failure}",
                    seen.failed,
                    seen.total()
                )
            }
            _ => format!("0 of {} requests failed {when}", seen.total()),
        };
        self.claim(text, seen.failed == 0 && seen.total() > 0);
    }

    fn summary(&mut self, total: Tally) -> bool {
        self.screen.chapter("Summary");
        for claim in &self.claims {
            self.screen.claim(&claim.text, claim.held);
        }
        let held = self.claims.iter().all(|claim| claim.held) && !self.claims.is_empty();
        self.screen.say(&format!(
            "{} requests, {} failed; {} of {} claims held",
            total.total(),
            total.failed,
            self.claims.iter().filter(|claim| claim.held).count(),
            self.claims.len()
        ));
        held
    }
}
