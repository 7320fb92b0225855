/* Exception vectors, and numbers beyond them for the other ways in which Xen enters the kernel. Also for assembly. */
#ifndef PV_VECTORS_H
#define PV_VECTORS_H

#define VECTOR_DE 0
#define VECTOR_DB 1
#define VECTOR_BP 3
#define VECTOR_OF 4
#define VECTOR_BR 5
#define VECTOR_UD 6
#define VECTOR_NM 7
#define VECTOR_NP 11
#define VECTOR_SS 12
#define VECTOR_GP 13
#define VECTOR_PF 14
#define VECTOR_MF 16
#define VECTOR_AC 17
#define VECTOR_XM 19

#define VECTOR_EVENT 256
#define VECTOR_SYSCALL 257
#define VECTOR_FAILSAFE 258
#define NR_VECTORS 259

#endif
