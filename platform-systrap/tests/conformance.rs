//! The platform conformance suite on systrap.

use quicksand_platform::PlatformError;
use quicksand_platform_systrap::SystrapPlatform;

fn platform() -> Option<SystrapPlatform> {
    match SystrapPlatform::new() {
        Ok(platform) => Some(platform),
        Err(error @ PlatformError::Unavailable { .. }) => {
            eprintln!("{error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

quicksand_platform_conformance::conformance_tests!(platform());
