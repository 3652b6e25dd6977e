/*
 * Lets user-mode Linux 6.1 run on processors whose register state is larger than it knows (Intel AMX).
 *
 * The kernel of the host takes a register state only whole: PTRACE_SETREGSET of a shorter one is EFAULT
 * (arch/x86/kernel/fpu/regset.c: xstateregs_set), upon which the guest's init dies of a segmentation fault. This library stands
 * before libc's ptrace and sends what is missing as zeros. That is the initial state of what the guest does not know: the header
 * of the state, which the guest did fill in, names none of it as in use.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

typedef long (*ptrace_function)(int, ...);

static ptrace_function libc_ptrace;

/* Not on the stack: this is called on the guest kernel's, which are small. The guest has one processor and calls it from there. */
static _Alignas(64) char whole_state[1 << 16];
static size_t whole_size;

__attribute__((constructor)) static void find_ptrace(void)
{
	libc_ptrace = (ptrace_function)dlsym(RTLD_NEXT, "ptrace");
}

static long set_whole_state(int pid, void *set, const struct iovec *part)
{
	if (!whole_size) {
		struct iovec probe = {whole_state, sizeof whole_state};
		if (libc_ptrace(PTRACE_GETREGSET, pid, set, &probe) < 0)
			return -1;
		memset(whole_state, 0, sizeof whole_state);
		whole_size = probe.iov_len;
	}
	if (part->iov_len >= whole_size) {
		errno = EFAULT;
		return -1;
	}
	memcpy(whole_state, part->iov_base, part->iov_len);
	struct iovec whole = {whole_state, whole_size};
	return libc_ptrace(PTRACE_SETREGSET, pid, set, &whole);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	int pid = va_arg(arguments, int);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);

	int sets_state = request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE;
	if (sets_state && whole_size)
		return set_whole_state(pid, address, data);
	long result = libc_ptrace(request, pid, address, data);
	if (result < 0 && sets_state && errno == EFAULT)
		return set_whole_state(pid, address, data);
	return result;
}
