#pragma once
// The shared memory whose size a launch gives, as numbers of one type. A block has one such piece.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef __CUDACC__
    extern __shared__ uint4 pieces[];  // 16-byte pieces, so that vectors may lie anywhere in it
    return reinterpret_cast<T*>(pieces);
#else
    return reinterpret_cast<T*>(host::dynamic_shared);
#endif
}
