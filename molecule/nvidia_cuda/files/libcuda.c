/* A dummy of NVIDIA's libcuda.so.1 for tests: its GPUs' kernel runs on the CPU. There are as many as the dummy PCI bus in
   /srv/gpu has, and one where there is no such bus.

   It knows just the calls of faceswap.ops.cuda_check and the shape of its PTX, whose two constants it reads from the
   text, so that a kernel with others gives other results. What it does wrong on purpose is the word in the environment
   variable DUMMY_CUDA or, where that is not set, in the file /srv/gpu/cuda: wrong, none, hang, crash,
   notready, full (memory), or fault (in the kernel, after which all else fails). */

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static unsigned multiplier, increment;

static int asked(const char *word)
{
    char said[32] = "";
    const char *variable = getenv("DUMMY_CUDA");
    if (variable) {
        snprintf(said, sizeof said, "%s", variable);
    } else {
        FILE *file = fopen("/srv/gpu/cuda", "r");
        if (file) {
            if (fscanf(file, "%31s", said) != 1)
                said[0] = 0;
            fclose(file);
        }
    }
    return strcmp(said, word) == 0;
}

int cuInit(unsigned flags)
{
    if (flags)
        return 1;
    if (asked("crash"))
        abort();
    if (asked("hang"))
        pause();
    return asked("none") ? 100 : asked("notready") ? 802 : 0;
}

int cuGetErrorName(int code, const char **text)
{
    *text = code == 2     ? "CUDA_ERROR_OUT_OF_MEMORY"
            : code == 100 ? "CUDA_ERROR_NO_DEVICE"
            : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS"
            : code == 802 ? "CUDA_ERROR_SYSTEM_NOT_READY"
                          : NULL;
    return *text ? 0 : 1;
}

int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGet(int *device, int index) { return *device = index, 0; }
int cuDeviceGetName(char *name, int size, int device) { return snprintf(name, size, "Dummy GPU"), device < 0; }
int cuDeviceTotalMem_v2(size_t *size, int device) { return *size = (size_t)4 << 30, device < 0; }

int cuDeviceGetCount(int *count)
{
    DIR *bus = opendir("/srv/gpu/sys/bus/pci/devices");
    *count = bus ? 0 : 1;
    for (struct dirent *entry = NULL; bus && (entry = readdir(bus));)
        *count += entry->d_name[0] != '.';
    if (bus)
        closedir(bus);
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    *value = attribute == 75 ? 8 : attribute == 76 ? 6 : 0;
    return *value == 0 || device < 0;
}

int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = &multiplier, device < 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return device < 0; }
int cuCtxSetCurrent(void *context) { return context != &multiplier; }
int cuCtxSynchronize(void) { return asked("fault") ? 700 : 0; }

int cuModuleLoadData(void **module, const char *ptx)
{
    const char *step = strstr(ptx, "mad.lo.u32 %r7, %r7, ");
    *module = &increment;
    return !step || !strstr(ptx, ".target sm_50")
        || sscanf(step, "mad.lo.u32 %%r7, %%r7, %u, %u;", &multiplier, &increment) != 2;
}

int cuModuleGetFunction(void **function, void *module, const char *name)
{
    *function = &increment;
    return module != &increment || strcmp(name, "faceswap_check");
}

int cuModuleUnload(void *module) { return asked("fault") ? 700 : module != &increment; }
int cuMemAlloc_v2(uint64_t *data, size_t size) { return (*data = (uintptr_t)calloc(1, size)) == 0 || asked("full") ? 2 : 0; }
int cuMemFree_v2(uint64_t data) { return free((void *)(uintptr_t)data), asked("fault") ? 700 : 0; }
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size) { return memcpy((void *)(uintptr_t)to, from, size), 0; }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) { return memcpy(to, (void *)(uintptr_t)from, size), 0; }

int cuLaunchKernel(void *function, unsigned blocks, unsigned y, unsigned z, unsigned threads, unsigned ty, unsigned tz,
                   unsigned shared, void *stream, void **values, void **extra)
{
    uint32_t *data = (uint32_t *)(uintptr_t) * (uint64_t *)values[0];
    uint32_t count = *(uint32_t *)values[1], rounds = *(uint32_t *)values[2];
    if (function != &increment || y != 1 || z != 1 || ty != 1 || tz != 1 || shared || stream || extra)
        return 1;
    for (uint32_t i = 0; i < blocks * threads && i < count; i++)
        for (uint32_t round = 0; round < rounds; round++)
            data[i] = data[i] * multiplier + increment;
    if (asked("wrong"))
        data[count - 1] ^= 1;
    return 0;
}
