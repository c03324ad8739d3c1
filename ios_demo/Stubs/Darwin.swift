@_exported import Glibc

public typealias natural_t = UInt32
public typealias integer_t = Int32
public typealias kern_return_t = Int32
public typealias mach_port_t = natural_t
public typealias mach_msg_type_number_t = natural_t
public typealias task_flavor_t = natural_t
public typealias task_info_t = UnsafeMutablePointer<integer_t>

public struct task_vm_info_data_t {
    public var ledger_phys_footprint_peak: Int64
    public init() { fatalError() }
}

public let KERN_SUCCESS: Int32 = 0
public let TASK_VM_INFO: Int32 = 22
public let mach_task_self_: mach_port_t = 0

public func task_info(
    _ target_task: mach_port_t, _ flavor: task_flavor_t, _ task_info_out: task_info_t!,
    _ task_info_outCnt: UnsafeMutablePointer<mach_msg_type_number_t>!
) -> kern_return_t { fatalError() }
