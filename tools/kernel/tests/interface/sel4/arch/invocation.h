#pragma once
enum { X86IOPortControlIssue = 5 };
