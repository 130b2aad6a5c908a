//! `quicksand doctor`'s look at KVM.

#[test]
fn probe_reports() {
    match quicksand_platform_kvm::probe() {
        Ok(report) => {
            println!("{report}");
            assert_eq!(report.api_version, 12);
            assert!(report.syscall_us > 0.0 && report.window_bytes > 0);
        }
        Err(quicksand_platform::PlatformError::Unavailable { reason, .. }) => eprintln!("NOT RUN: {reason}"),
        Err(error) => panic!("{error}"),
    }
}
