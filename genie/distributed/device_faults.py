"""Errors of a device that users can fix: full memory, a GPU in use, and a torch that does not suit GPU or driver.

torch raises them as RuntimeErrors, which are told from bugs by their messages. torch itself, which takes seconds to
import, is not imported.
"""

FULL_CPU = "DefaultCPUAllocator: can't allocate memory"
FULL_GPU = ("out of memory", "ALLOC_FAILED")  # of CUDA and MPS, and of cuBLAS
OTHER_DEVICE = "choose another GPU with CUDA_VISIBLE_DEVICES, or set runtime.device to cpu"
OTHER_DRIVER = "update the driver, install a torch built for an older CUDA, or set runtime.device to cpu"
FIXES = {
    "busy or unavailable": f"another program may hold the GPU for itself; end it (nvidia-smi lists it), {OTHER_DEVICE}",
    "driver on your system is too old": OTHER_DRIVER,
    "driver version is insufficient": OTHER_DRIVER,
    "no kernel image is available": f"this torch is not built for this GPU; install one that is, {OTHER_DEVICE}",
}


def describe_device_fault(fault: RuntimeError | MemoryError, program: str) -> str | None:
    """Describes an error of a device in one line, with cause and fix; None if it is another error.

    Args:
        fault: the error.
        program: name of the stage or command.
    """
    message = " ".join(str(fault).split("\n", 1)[0].split())  # torch's further lines are about debugging
    if isinstance(fault, MemoryError) or FULL_CPU in message:
        cause = message[message.find(FULL_CPU) :] if FULL_CPU in message else message or "MemoryError"
        return f"out of memory ({cause}): {_smaller_batch(program)}end other programs"
    if any(sign in message for sign in FULL_GPU):
        # What torch adds about fragmentation concerns few; what it says about other processes comes before.
        cause = message.partition(" Of the allocated memory")[0].rstrip(".")
        return f"out of memory ({cause}): {_smaller_batch(program)}end other programs on the GPU, {OTHER_DEVICE}"
    for sign, fix in FIXES.items():
        if sign in message:
            return f"{message.partition('. ')[0]}: {fix}"
    return None


def _smaller_batch(program: str) -> str:
    section = program.removeprefix("train_")
    return "" if section == program else f"lower the batch_size of {section} in params.yaml; or "
