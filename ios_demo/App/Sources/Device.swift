/// What this phone is and how it is doing: facts for the result file, free memory, thermal state.

import Darwin
import ElirApple
import ElirCore
import Foundation
import UIKit
import os

enum Device {
    /// Bytes that this process may still take. The simulator does not say: as many as there are.
    static var availableMemory: Int {
        let available = os_proc_available_memory()
        return available > 0 ? available : Int(clamping: ProcessInfo.processInfo.physicalMemory)
    }

    /// Largest footprint of this process so far in bytes, or nil where the system does not say.
    static var peakMemory: Int? {
        var info = task_vm_info_data_t()
        let words = MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size
        var count = mach_msg_type_number_t(words)
        let status = withUnsafeMutablePointer(to: &info) { pointer in
            pointer.withMemoryRebound(to: integer_t.self, capacity: words) {
                task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
            }
        }
        return status == KERN_SUCCESS ? Int(info.ledger_phys_footprint_peak) : nil
    }

    /// Apple's name of the model, as `iPhone16,1`.
    static var machine: String {
        var system = utsname()
        uname(&system)
        return withUnsafeBytes(of: &system.machine) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    static var isSimulator: Bool {
        #if targetEnvironment(simulator)
        return true
        #else
        return false
        #endif
    }

    /// The result file's `device`.
    @MainActor static func facts(units: ComputeUnits) -> DeviceFacts {
        let device = UIDevice.current
        let system = "\(device.systemName) \(device.systemVersion)"
        let executorch = Bundle.main.object(forInfoDictionaryKey: "ElirExecuTorchVersion") as? String
        return DeviceFacts(
            name: machine,
            kind: "ios",
            system: system,
            arch: "arm64",
            cpu: "\(ProcessInfo.processInfo.activeProcessorCount) cores",
            emulated: isSimulator,
            runtimes: [
                CoreMLPrograms.target: "\(system), \(units.rawValue)",
                ExecuTorchPrograms.target: executorch ?? "unknown",
            ])
    }
}

extension ProcessInfo.ThermalState {
    var title: String {
        switch self {
        case .nominal: return "nominal"
        case .fair: return "fair"
        case .serious: return "serious: the phone slows down"
        case .critical: return "critical: let the phone cool"
        @unknown default: return "unknown"
        }
    }
}
