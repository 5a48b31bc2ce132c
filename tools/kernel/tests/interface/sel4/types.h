#pragma once
#include <autoconf.h>
#include <sel4/syscall.h>

typedef unsigned long seL4_Word;
typedef struct { seL4_Word words[1]; } seL4_MessageInfo_t;

enum {
    seL4_MsgMaxLength = 120,
    seL4_MsgMaxExtraCaps = 3,
};

typedef struct {
    seL4_MessageInfo_t tag;
    seL4_Word msg[seL4_MsgMaxLength];
    seL4_Word userData;
    seL4_Word caps_or_badges[seL4_MsgMaxExtraCaps];
    seL4_Word receiveCNode, receiveIndex, receiveDepth;
} seL4_IPCBuffer;

enum {
    seL4_UntypedObject = 20, seL4_TCBObject, seL4_EndpointObject, seL4_NotificationObject,
    seL4_CapTableObject, seL4_X86_PDPTObject, seL4_X64_PML4Object, seL4_X64_HugePageObject,
    seL4_X86_4K, seL4_X86_LargePageObject, seL4_X86_PageTableObject,
    seL4_X86_PageDirectoryObject,
};

enum {
    seL4_SlotBits = 6, seL4_TCBBits = 13, seL4_EndpointBits = 4, seL4_NotificationBits = 5,
    seL4_PageBits = 12, seL4_LargePageBits = 21, seL4_HugePageBits = 30,
    seL4_PageTableBits = 12, seL4_PageDirBits = 12, seL4_PDPTBits = 12, seL4_PML4Bits = 13,
    seL4_ASIDPoolBits = 12, seL4_MinUntypedBits = 4, seL4_MaxUntypedBits = 46,
};

enum {
    seL4_NoError, seL4_InvalidArgument, seL4_InvalidCapability, seL4_IllegalOperation,
    seL4_RangeError, seL4_AlignmentError, seL4_FailedLookup, seL4_TruncatedMessage,
    seL4_DeleteFirst, seL4_RevokeFirst, seL4_NotEnoughMemory, seL4_NumErrors,
};

enum { seL4_InvalidRoot = 1, seL4_MissingCapability, seL4_DepthMismatch, seL4_GuardMismatch };

enum {
    seL4_CapFault_BitsLeft = 4,
    seL4_VMFault_Length = 4,
    seL4_UnknownSyscall_Syscall = 18, seL4_UnknownSyscall_Length,
    seL4_UserException_Number = 3, seL4_UserException_Length = 5,
};

enum {
    seL4_X86_WriteBack, seL4_X86_WriteThrough, seL4_X86_CacheDisabled, seL4_X86_Uncacheable,
    seL4_X86_WriteCombining,
};

#define seL4_BadgeBits 63
#define seL4_GuardBits 57
#define seL4_WordBits 64
#define seL4_UntypedRetypeMaxObjects 250
#define seL4_UserTop 0x7ffffffff000
