import CVMMLinux
import Glibc
import VMMBase

/// `/dev/kvm`: what the host's KVM can do, and where virtual machines come from.
package final class KVMSystem: Sendable {
    let descriptor: FileDescriptor
    /// Size of a vCPU's shared run structure in bytes.
    let runMappingSize: Int

    /// A capability that this monitor cannot do without, by the name KVM's documentation gives it.
    package struct Capability: Sendable {
        package let name: String
        let number: Int32
    }

    /// Why a KVM cannot be used.
    package enum Unusable: Error, CustomStringConvertible, Sendable {
        case missing
        case notPermitted
        case other(HostError)
        case wrongVersion(Int32)
        case lacks([String])

        package var description: String {
            switch self {
            case .missing:
                "/dev/kvm does not exist: this machine has no KVM, or its module is not loaded"
            case .notPermitted:
                "/dev/kvm may not be opened by this user: join its group, or run as root"
            case .other(let error): error.description
            case .wrongVersion(let version):
                "/dev/kvm speaks API version \(version), and version 12 is needed"
            case .lacks(let names):
                "/dev/kvm lacks what is needed: " + names.joined(separator: ", ")
            }
        }
    }

    package static let required: [Capability] = [
        Capability(name: "KVM_CAP_USER_MEMORY", number: KVM_CAP_USER_MEMORY),
        Capability(name: "KVM_CAP_SET_TSS_ADDR", number: KVM_CAP_SET_TSS_ADDR),
        Capability(name: "KVM_CAP_SET_IDENTITY_MAP_ADDR", number: KVM_CAP_SET_IDENTITY_MAP_ADDR),
        Capability(name: "KVM_CAP_EXT_CPUID", number: KVM_CAP_EXT_CPUID),
        Capability(name: "KVM_CAP_IRQCHIP", number: KVM_CAP_IRQCHIP),
        Capability(name: "KVM_CAP_SPLIT_IRQCHIP", number: KVM_CAP_SPLIT_IRQCHIP),
        Capability(name: "KVM_CAP_IRQ_ROUTING", number: KVM_CAP_IRQ_ROUTING),
        Capability(name: "KVM_CAP_IRQFD", number: KVM_CAP_IRQFD),
        Capability(name: "KVM_CAP_IOEVENTFD", number: KVM_CAP_IOEVENTFD),
        Capability(name: "KVM_CAP_SIGNAL_MSI", number: KVM_CAP_SIGNAL_MSI),
        Capability(name: "KVM_CAP_IMMEDIATE_EXIT", number: KVM_CAP_IMMEDIATE_EXIT),
        Capability(name: "KVM_CAP_TSC_DEADLINE_TIMER", number: KVM_CAP_TSC_DEADLINE_TIMER),
        Capability(name: "KVM_CAP_X2APIC_API", number: KVM_CAP_X2APIC_API),
        Capability(name: "KVM_CAP_GET_TSC_KHZ", number: KVM_CAP_GET_TSC_KHZ),
    ]

    /// Opens KVM and checks its version and capabilities.
    package init(path: String = "/dev/kvm") throws(Unusable) {
        do throws(HostError) {
            descriptor = try FileDescriptor.open(path, .readWrite)
        } catch {
            switch error.code {
            case ENOENT, ENODEV, ENXIO: throw .missing
            case EACCES, EPERM: throw .notPermitted
            default: throw .other(error)
            }
        }
        let version = descriptor.ioctl(VMM_KVM_GET_API_VERSION)
        guard version == 12 else { throw .wrongVersion(version) }
        runMappingSize = Int(max(0, descriptor.ioctl(VMM_KVM_GET_VCPU_MMAP_SIZE)))
        let lacking = Self.required.filter { descriptor.check($0.number) <= 0 }
        guard lacking.isEmpty else { throw .lacks(lacking.map(\.name)) }
    }

    /// The most vCPUs that one virtual machine may have here.
    package var maximumVCPUs: Int { Int(max(1, descriptor.check(KVM_CAP_MAX_VCPUS))) }

    package func makeVirtualMachine() throws(HostError) -> KVMVirtualMachine {
        let raw = descriptor.ioctl(VMM_KVM_CREATE_VM, 0)
        guard raw >= 0 else { throw .last("create a KVM virtual machine") }
        return KVMVirtualMachine(FileDescriptor(owning: raw), runMappingSize: runMappingSize)
    }
}

extension FileDescriptor {
    /// KVM_CHECK_EXTENSION: 0 or less means absent (KVM api 4.4).
    func check(_ capability: Int32) -> Int32 {
        ioctl(VMM_KVM_CHECK_EXTENSION, UInt64(capability))
    }
}
