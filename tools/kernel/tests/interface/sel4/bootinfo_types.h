#pragma once
#include <sel4/types.h>

enum {
    seL4_CapNull, seL4_CapInitThreadTCB, seL4_CapInitThreadCNode, seL4_CapInitThreadVSpace,
    seL4_CapIRQControl, seL4_CapASIDControl, seL4_CapInitThreadASIDPool, seL4_CapIOSpace,
    seL4_CapIOPortControl, seL4_CapBootInfoFrame, seL4_CapInitThreadIPCBuffer, seL4_CapDomain,
    seL4_NumInitialCaps = 18,
};

typedef struct { seL4_Word start, end; } seL4_SlotRegion;

typedef struct {
    unsigned char isDevice, sizeBits;
    seL4_Word paddr;
} seL4_UntypedDesc;

typedef struct {
    seL4_Word extraLen, numNodes;
    seL4_IPCBuffer *ipcBuffer;
    seL4_SlotRegion empty, sharedFrames, userImageFrames, userImagePaging, extraBIPages;
    seL4_Word initThreadCNodeSizeBits;
    seL4_SlotRegion untyped;
    seL4_UntypedDesc untypedList[CONFIG_MAX_NUM_BOOTINFO_UNTYPED_CAPS];
} seL4_BootInfo;

#define seL4_BootInfoFrameSize 8192

enum { SEL4_BOOTINFO_HEADER_X86_ACPI_RSDP = 33 };
