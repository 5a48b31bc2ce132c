#pragma once
enum { TCBOne = 1, TCBSetPriority, TCBLast };
