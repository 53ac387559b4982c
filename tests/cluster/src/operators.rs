//! What operators publish of their objects: their CRDs, from the Go module proxy, kept beside Kubernetes' programs.
//!
//! The operators themselves are not in the test cluster. But the API server holds objects to a CRD's schema as it does where
//! the operator runs, rules in CEL and unknown fields included, so the CRD is enough to see that a manifest is right.
//!
//! It needs the network once, so it runs before isolation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::versions::Versions;

/// An operator, and where its CRDs are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operator {
    /// As people call it.
    pub name: &'static str,
    /// The Go module.
    module: &'static str,
    /// The module's version.
    version: &'static str,
    /// The files that are wanted, in the module.
    files: &'static [&'static str],
}

/// Those whose objects `deploy/` has.
pub const OPERATORS: [Operator; 7] = [
    Operator {
        name: "KEDA",
        module: "github.com/kedacore/keda/v2",
        version: "v2.21.0",
        files: &[
            "config/crd/bases/keda.sh_scaledobjects.yaml",
            "config/crd/bases/keda.sh_triggerauthentications.yaml",
        ],
    },
    Operator {
        name: "Istio",
        module: "istio.io/api",
        version: "v1.32.0",
        files: &["kubernetes/customresourcedefinitions.gen.yaml"],
    },
    Operator {
        name: "KServe",
        module: "github.com/kserve/kserve",
        version: "v0.20.0",
        files: &["config/crd/full/serving.kserve.io_inferenceservices.yaml"],
    },
    Operator {
        name: "Prometheus Operator",
        module: "github.com/prometheus-operator/prometheus-operator",
        version: "v0.85.0",
        files: &[
            "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        ],
    },
    Operator {
        name: "Argo CD",
        module: "github.com/argoproj/argo-cd/v3",
        version: "v3.5.7",
        files: &["manifests/crds/application-crd.yaml"],
    },
    Operator {
        name: "Flux's source-controller",
        module: "github.com/fluxcd/source-controller",
        version: "v1.9.6",
        files: &["config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml"],
    },
    Operator {
        name: "Flux's helm-controller",
        module: "github.com/fluxcd/helm-controller",
        version: "v1.6.3",
        files: &["config/crd/bases/helm.toolkit.fluxcd.io_helmreleases.yaml"],
    },
];

impl Operator {
    /// The files of its CRDs, downloaded where they are not in the cache.
    ///
    /// # Errors
    /// Why they cannot be had: no Go, no network, or a proxy that does not have the module.
    pub fn crds(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder();
        let named = |file: &&str| folder.join(Path::new(file).file_name().unwrap_or_default());
        let files: Vec<PathBuf> = self.files.iter().map(named).collect();
        if !files.iter().all(|file| file.is_file()) {
            self.download(&folder, &files)?;
        }
        Ok(files)
    }

    fn folder(&self) -> PathBuf {
        let module = self.module.replace('/', "-");
        Versions::cache_root().join("crds").join(format!("{module}-{}", self.version))
    }

    fn download(&self, folder: &Path, files: &[PathBuf]) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        eprintln!("Downloading the CRDs of {} {} …", self.name, self.version);
        let module = format!("{}@{}", self.module, self.version);
        let output = Command::new("go")
            .args(["mod", "download", "-json", &module])
            .current_dir(folder)
            .env("GOWORK", "off")
            .stdin(Stdio::null())
            .output()
            .context("cannot run `go` (install Go 1.21 or newer: https://go.dev/dl)")?;
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let error = said["Error"].as_str().map(str::to_owned);
        let error = error.unwrap_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned());
        ensure!(output.status.success(), "`go mod download {module}` fails: {}", error.replace("\n\t", " "));
        let source = PathBuf::from(said["Dir"].as_str().context("`go mod download -json` names no folder")?);
        for (file, to) in self.files.iter().zip(files) {
            // Beside, and into place by a rename: another run may look meanwhile.
            let beside = to.with_added_extension("new");
            fs::copy(source.join(file), &beside).with_context(|| format!("{module} has no {file}"))?;
            fs::rename(&beside, to).with_context(|| format!("cannot write {}", to.display()))?;
        }
        Ok(())
    }
}

/// Downloads what is not there yet. Whatever cannot be had is told by who needs it.
pub fn prepare() {
    for operator in OPERATORS {
        let _ = operator.crds();
    }
}
