// What each system call takes: the letters of its arguments, from which `arguments.h` makes valid, nearly valid and hostile values.
//
//     d descriptor      D directory descriptor, AT_FDCWD   p path            b buffer          n length          i small number
//     v vector          V vector count                     m msghdr          M mmsghdr         s socket address  S its length
//     L pointer to it   t timespec                         T itimerspec      e epoll_event     P pollfd          g signal
//     G signal set      8 its size                         a sigaction       x flags, any      A address         Z mapped length
//     w process         u user                             o offset          O pointer to it   q futex word      Q futex operation
//     r prctl option    R fcntl command                    F its argument    I ioctl command   K socket level    k socket option
//     X attribute name  c clock                            h how (openat2)   y clone_args      z sigevent        f open flags
//     l rlimit          B argv or envp                     E epoll operation j fs type         W timer id        N timeval pair
//     H wait options    J protection                       Y mapping flags   _ nothing
struct shape {
    short number;
    const char *kinds;
};

static const struct shape shapes[] = {
    {0, "dbn"}, {1, "dbn"}, {2, "pfx"}, {3, "d"}, {4, "pb"}, {5, "db"}, {6, "pb"}, {7, "Pii"}, {8, "doi"}, {9, "AZJYdo"}, {10, "AZJ"},
    {11, "AZ"}, {12, "A"}, {13, "gaa8"}, {14, "iGG8"}, {15, ""}, {16, "dIb"}, {17, "dbno"}, {18, "dbno"}, {19, "dvV"}, {20, "dvV"},
    {21, "pi"}, {22, "b"}, {23, "ibbbN"}, {24, ""}, {25, "AZZiA"}, {26, "AZi"}, {27, "AZb"}, {28, "AZi"}, {29, "inx"}, {30, "iAx"},
    {31, "iib"}, {32, "d"}, {33, "dd"}, {35, "tt"}, {36, "ib"}, {37, "i"}, {38, "iNN"}, {39, ""}, {40, "ddOn"}, {41, "iii"},
    {42, "dsS"}, {43, "dsL"}, {44, "dbnxsS"}, {45, "dbnxsL"}, {46, "dmx"}, {47, "dmx"}, {48, "di"}, {49, "dsS"}, {50, "di"},
    {51, "dsL"}, {52, "dsL"}, {53, "iiib"}, {54, "dKkbS"}, {55, "dKkbL"}, {56, "xAbbA"}, {57, ""}, {58, ""}, {59, "pBB"}, {61, "wbHb"},
    {62, "wg"}, {63, "b"}, {64, "iix"}, {65, "ibn"}, {66, "iiib"}, {67, "A"}, {68, "ix"}, {69, "ibnx"}, {70, "ibnix"}, {71, "iib"},
    {72, "dRF"}, {73, "di"}, {74, "d"}, {75, "d"}, {76, "po"}, {77, "do"}, {78, "dbn"}, {79, "bn"}, {80, "p"}, {81, "d"}, {82, "pp"},
    {83, "px"}, {84, "p"}, {85, "px"}, {86, "pp"}, {87, "p"}, {88, "pp"}, {89, "pbn"}, {90, "px"}, {91, "dx"}, {92, "puu"}, {93, "duu"},
    {94, "puu"}, {95, "x"}, {96, "bb"}, {97, "ib"}, {98, "ib"}, {99, "b"}, {100, "b"}, {101, "iwAb"}, {102, ""}, {103, "ibn"}, {104, ""},
    {105, "u"}, {106, "u"}, {107, ""}, {108, ""}, {109, "ww"}, {110, ""}, {111, ""}, {112, ""}, {113, "uu"}, {114, "uu"}, {115, "ib"},
    {116, "nb"}, {117, "uuu"}, {118, "bbb"}, {119, "uuu"}, {120, "bbb"}, {121, "w"}, {122, "u"}, {123, "u"}, {124, "w"}, {125, "bb"},
    {126, "bb"}, {127, "G8"}, {128, "Gbt8"}, {129, "wgb"}, {130, "G8"}, {131, "bb"}, {132, "pb"}, {133, "pxx"}, {134, ""}, {135, "x"},
    {136, "xb"}, {137, "pb"}, {138, "db"}, {139, "ib"}, {140, "iw"}, {141, "iwi"}, {142, "wb"}, {143, "wb"}, {144, "wib"}, {145, "w"},
    {146, "i"}, {147, "i"}, {148, "wb"}, {149, "AZ"}, {150, "AZ"}, {151, "i"}, {152, ""}, {153, ""}, {154, "ibn"}, {155, "pp"}, {156, "b"},
    {157, "rFFFF"}, {158, "xA"}, {159, "b"}, {160, "il"}, {161, "p"}, {162, ""}, {163, "p"}, {164, "NN"}, {165, "ppjxb"}, {166, "pi"},
    {167, "px"}, {168, "p"}, {169, "xxxb"}, {170, "bn"}, {171, "bn"}, {172, "i"}, {173, "ooi"}, {174, "pn"}, {175, "bnp"}, {176, "px"},
    {177, "b"}, {178, "pibnb"}, {179, "ipib"}, {180, ""}, {181, ""}, {182, ""}, {183, ""}, {184, ""}, {185, ""}, {186, ""}, {187, "don"},
    {188, "pXbni"}, {189, "pXbni"}, {190, "dXbni"}, {191, "pXbn"}, {192, "pXbn"}, {193, "dXbn"}, {194, "pbn"}, {195, "pbn"}, {196, "dbn"},
    {197, "pX"}, {198, "pX"}, {199, "dX"}, {200, "wg"}, {201, "b"}, {202, "qQitqi"}, {203, "wnb"}, {204, "wnb"}, {205, "b"}, {206, "ib"},
    {207, "x"}, {208, "xiibt"}, {209, "xib"}, {210, "xbb"}, {211, "b"}, {212, "xbn"}, {213, "i"}, {214, "iidb"}, {215, "ibii"},
    {216, "AZJix"}, {217, "dbn"}, {218, "q"}, {219, ""}, {220, "ibnt"}, {221, "doni"}, {222, "czb"}, {223, "WiTT"}, {224, "WT"}, {225, "W"},
    {226, "W"}, {227, "ct"}, {228, "cb"}, {229, "cb"}, {230, "citt"}, {232, "dbii"}, {233, "dEde"}, {234, "wwg"}, {235, "pN"}, {236, ""},
    {237, "AZibix"}, {238, "ibi"}, {239, "bbiAx"}, {240, "pfxb"}, {241, "p"}, {242, "dbnit"}, {243, "dbnbt"}, {244, "dz"}, {245, "dbb"},
    {246, "xibx"}, {247, "iwbHb"}, {248, "ppbni"}, {249, "pppi"}, {250, "iiiii"}, {251, "iwi"}, {252, "iw"}, {253, ""}, {254, "dpx"},
    {255, "di"}, {256, "wnbb"}, {257, "Dpfx"}, {258, "Dpx"}, {259, "Dpxx"}, {260, "Dpuux"}, {261, "DpN"}, {262, "Dpbx"}, {263, "Dpx"},
    {264, "DpDp"}, {265, "DpDpx"}, {266, "pDp"}, {267, "Dpbn"}, {268, "Dpx"}, {269, "Dpi"}, {270, "ibbbtb"}, {271, "PitG8"}, {272, "x"},
    {273, "q8"}, {274, "wbb"}, {275, "dOdOnx"}, {276, "ddnx"}, {277, "donx"}, {278, "dvVx"}, {279, "wnbbbx"}, {280, "Dptx"}, {281, "dbiiG8"},
    {282, "dG8"}, {283, "cx"}, {284, "i"}, {285, "dioo"}, {286, "diTT"}, {287, "dT"}, {288, "dsLx"}, {289, "dG8x"}, {290, "ix"}, {291, "x"},
    {292, "ddx"}, {293, "bx"}, {294, "x"}, {295, "dvVo_"}, {296, "dvVo_"}, {297, "wwgb"}, {298, "bwidx"}, {299, "dMixt"}, {300, "xx"},
    {301, "dxxDp"}, {302, "wilb"}, {303, "Dpbbx"}, {304, "dbf"}, {305, "cb"}, {306, "d"}, {307, "dMix"}, {308, "dx"}, {309, "bbb"},
    {310, "wvVvVi"}, {311, "wvVvVi"}, {312, "wwidd"}, {313, "dpx"}, {314, "wbi"}, {315, "wbni"}, {316, "DpDpi"}, {317, "iib"}, {318, "bni"},
    {319, "pi"}, {320, "ddnpx"}, {321, "ibn"}, {322, "DpBBx"}, {323, "x"}, {324, "xii"}, {325, "AZi"}, {326, "dOdOnx"}, {327, "dvVo_i"},
    {328, "dvVo_i"}, {329, "AZJi"}, {330, "ii"}, {331, "i"}, {332, "Dpxxb"}, {333, "xiibtb"}, {334, "bnix"}, {424, "dgbi"}, {425, "ib"},
    {426, "diixGn"}, {427, "dibi"}, {428, "Dpx"}, {429, "DpDpx"}, {430, "jx"}, {431, "dippi"}, {432, "dxx"}, {433, "Dpx"}, {434, "wx"},
    {435, "yn"}, {436, "dii"}, {437, "Dphn"}, {438, "ddi"}, {439, "Dpix"}, {440, "dvVii"}, {441, "dbitG8"}, {442, "Dpxbn"}, {443, "diib"},
    {444, "bnx"}, {445, "dibx"}, {446, "dx"}, {447, "x"}, {448, "dx"}, {449, "bixtc"}, {450, "AZix"}, {451, "dbbx"}, {452, "Dpxx"},
    {453, "AZx"}, {454, "qiix"}, {455, "qiixtc"}, {456, "bxii"}, {457, "bbnx"}, {458, "bbnx"}, {459, "ibbx"}, {460, "ibnx"}, {461, "bbx"},
    {462, "AZi"}, {463, "DpxXbn"}, {464, "DpxXbn"}, {465, "Dpxbn"}, {466, "DpxX"}, {467, "Dpxbn"},
};
