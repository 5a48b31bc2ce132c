#pragma once
enum { X86PDPTMap = 4 };
