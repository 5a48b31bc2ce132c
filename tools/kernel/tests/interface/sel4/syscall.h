#pragma once
enum { seL4_SysCall = -1, seL4_SysReply = -2 };
