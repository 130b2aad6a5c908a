//! The platform conformance suite on KVM.

use quicksand_platform::PlatformError;
use quicksand_platform_kvm::KvmPlatform;

fn platform() -> Option<KvmPlatform> {
    match KvmPlatform::new(None) {
        Ok(platform) => Some(platform),
        Err(error @ PlatformError::Unavailable { .. }) => {
            eprintln!("{error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

quicksand_platform_conformance::conformance_tests!(platform());
