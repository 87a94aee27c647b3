//! A Prometheus that scrapes `tcptrace export` each second.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::eventually;
use tests::run::Running;

/// The value of a series, with its labels.
pub type Sample = (BTreeMap<String, String>, f64);

pub struct Prometheus {
    port: u16,
    agent: ureq::Agent,
    _running: Running,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts Prometheus in the namespace of this thread.
    pub fn start(port: u16, args: &[&str]) -> Prometheus {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("prometheus.yml");
        let rules = super::file("deploy/prometheus/tcptrace.rules.yml");
        let rules = rules.canonicalize().expect("rules");
        let text = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n\
             rule_files: ['{}']\n\
             scrape_configs:\n- job_name: tcptrace\n  static_configs:\n  - targets: ['127.0.0.1:9807']\n",
            rules.display()
        );
        std::fs::write(&config, text).expect("write the configuration");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(args);
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .build();
        Prometheus {
            port,
            agent: agent.into(),
            _running: Running::start(command),
            _folder: folder,
        }
    }

    fn ask(&self, query: &str) -> Result<Value, ureq::Error> {
        let url = format!("http://127.0.0.1:{}/api/v1/query", self.port);
        let mut answer = self.agent.get(&url).query("query", query).call()?;
        answer.body_mut().read_json()
    }

    /// Returns the result of a query that must be without error.
    #[track_caller]
    pub fn query(&self, query: &str) -> Vec<Sample> {
        let answer = self
            .ask(query)
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let result = answer["data"]["result"].as_array().expect("a vector");
        let samples = result.iter().map(|it| {
            let labels = it["metric"].as_object().expect("labels").iter();
            let labels = labels
                .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
            let value = it["value"][1].as_str().and_then(|it| it.parse().ok());
            (labels.collect(), value.expect("a number"))
        });
        samples.collect()
    }

    /// Returns the only value of a query.
    #[track_caller]
    pub fn value(&self, query: &str) -> f64 {
        let samples = self.query(query);
        assert_eq!(samples.len(), 1, "{query}: {samples:?}");
        samples[0].1
    }

    /// Waits until a query has this value.
    pub fn wait_for_value(&self, query: &str, value: f64) {
        eventually(&format!("{query} to be {value}"), || {
            std::thread::sleep(Duration::from_millis(100));
            let answer = self.ask(query).ok()?;
            let found = answer["data"]["result"][0]["value"][1].as_str()?.parse();
            (found == Ok(value)).then_some(())
        });
    }
}
