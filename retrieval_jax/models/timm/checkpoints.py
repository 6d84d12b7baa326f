"""Facts about timm's published weights: tags, picture statistics, crop, size, licence.

Taken from timm 1.0.31 for the architectures listed here, so that weights can be used on machines without access to the
hub. A config.json beside the weights takes precedence.

Longer than 400 lines: a table of data, one row per group of checkpoints.
"""

STATISTICS = {  # mean and standard deviation per RGB channel, for pictures in 0..1
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}

# (architecture, statistics, share of the side that the crop keeps, side in pixels, licence, tags); the first tag of an
# architecture's first row is timm's default.
CHECKPOINTS = (
    ("beit_base_patch16_224", "half", 0.9, 224, "apache-2.0", "in22k_ft_in22k_in1k in22k_ft_in22k"),
    ("beit_base_patch16_384", "half", 1.0, 384, "apache-2.0", "in22k_ft_in22k_in1k"),
    ("beit_large_patch16_224", "half", 0.9, 224, "apache-2.0", "in22k_ft_in22k_in1k in22k_ft_in22k"),
    ("beit_large_patch16_384", "half", 1.0, 384, "apache-2.0", "in22k_ft_in22k_in1k"),
    ("beit_large_patch16_512", "half", 1.0, 512, "apache-2.0", "in22k_ft_in22k_in1k"),
    ("beitv2_base_patch16_224", "imagenet", 0.9, 224, "apache-2.0", "in1k_ft_in22k_in1k in1k_ft_in1k in1k_ft_in22k"),
    ("beitv2_large_patch16_224", "imagenet", 0.95, 224, "apache-2.0", "in1k_ft_in22k_in1k in1k_ft_in1k"),
    ("beitv2_large_patch16_224", "imagenet", 0.9, 224, "apache-2.0", "in1k_ft_in22k"),
    ("convnext_atto", "imagenet", 0.875, 224, "apache-2.0", "d2_in1k"),
    ("convnext_atto_ols", "imagenet", 0.875, 224, "apache-2.0", "a2_in1k"),
    ("convnext_base", "imagenet", 0.875, 224, "apache-2.0", "fb_in22k_ft_in1k fb_in1k fb_in22k"),
    ("convnext_base", "imagenet", 1.0, 384, "apache-2.0", "fb_in22k_ft_in1k_384"),
    (
        "convnext_base",
        "clip",
        1.0,
        256,
        "apache-2.0",
        "clip_laion2b_augreg_ft_in12k_in1k clip_laion2b_augreg_ft_in1k clip_laion2b_augreg_ft_in12k clip_laion2b "
        "clip_laion2b_augreg clip_laiona",
    ),
    (
        "convnext_base",
        "clip",
        1.0,
        384,
        "apache-2.0",
        "clip_laion2b_augreg_ft_in12k_in1k_384 clip_laiona_augreg_ft_in1k_384",
    ),
    ("convnext_base", "clip", 1.0, 320, "apache-2.0", "clip_laiona_320 clip_laiona_augreg_320"),
    ("convnext_base", "imagenet", 1.0, 224, "dinov3-license", "dinov3_lvd1689m"),
    ("convnext_base", "imagenet", 1.0, 256, "fair-noncommercial-research-license", "eupe_lvd1689m"),
    ("convnext_femto", "imagenet", 0.875, 224, "apache-2.0", "d1_in1k"),
    ("convnext_femto_ols", "imagenet", 0.875, 224, "apache-2.0", "d1_in1k"),
    ("convnext_large", "imagenet", 0.875, 224, "apache-2.0", "fb_in22k_ft_in1k fb_in1k fb_in22k"),
    ("convnext_large", "imagenet", 1.0, 384, "apache-2.0", "fb_in22k_ft_in1k_384"),
    ("convnext_large", "imagenet", 1.0, 224, "dinov3-license", "dinov3_lvd1689m"),
    (
        "convnext_large_mlp",
        "clip",
        1.0,
        320,
        "apache-2.0",
        "clip_laion2b_soup_ft_in12k_in1k_320 clip_laion2b_soup_ft_in12k_320 clip_laion2b_ft_320 "
        "clip_laion2b_ft_soup_320",
    ),
    (
        "convnext_large_mlp",
        "clip",
        1.0,
        384,
        "apache-2.0",
        "clip_laion2b_soup_ft_in12k_in1k_384 clip_laion2b_augreg_ft_in1k_384 clip_laion2b_augreg_ft_in12k_384 "
        "clip_laion2b_soup_ft_in12k_384",
    ),
    ("convnext_large_mlp", "clip", 1.0, 256, "apache-2.0", "clip_laion2b_augreg_ft_in1k clip_laion2b_augreg"),
    ("convnext_nano", "imagenet", 0.95, 224, "apache-2.0", "in12k_ft_in1k d1h_in1k in12k"),
    ("convnext_nano", "imagenet", 1.0, 384, "apache-2.0", "r384_in12k_ft_in1k r384_in12k r384_ad_in12k"),
    ("convnext_nano_ols", "imagenet", 0.95, 224, "apache-2.0", "d1h_in1k"),
    ("convnext_pico", "imagenet", 0.875, 224, "apache-2.0", "d1_in1k"),
    ("convnext_pico_ols", "imagenet", 0.95, 224, "apache-2.0", "d1_in1k"),
    ("convnext_small", "imagenet", 0.95, 224, "apache-2.0", "in12k_ft_in1k in12k"),
    ("convnext_small", "imagenet", 1.0, 384, "apache-2.0", "in12k_ft_in1k_384 fb_in22k_ft_in1k_384"),
    ("convnext_small", "imagenet", 0.875, 224, "apache-2.0", "fb_in22k_ft_in1k fb_in1k fb_in22k"),
    ("convnext_small", "imagenet", 1.0, 224, "dinov3-license", "dinov3_lvd1689m"),
    ("convnext_small", "imagenet", 1.0, 256, "fair-noncommercial-research-license", "eupe_lvd1689m"),
    ("convnext_tiny", "imagenet", 0.95, 224, "apache-2.0", "in12k_ft_in1k in12k"),
    ("convnext_tiny", "imagenet", 1.0, 384, "apache-2.0", "in12k_ft_in1k_384 fb_in22k_ft_in1k_384"),
    ("convnext_tiny", "imagenet", 0.875, 224, "apache-2.0", "fb_in22k_ft_in1k fb_in1k fb_in22k"),
    ("convnext_tiny", "imagenet", 1.0, 224, "dinov3-license", "dinov3_lvd1689m"),
    ("convnext_tiny", "imagenet", 1.0, 256, "fair-noncommercial-research-license", "eupe_lvd1689m"),
    ("convnext_xlarge", "imagenet", 0.875, 224, "apache-2.0", "fb_in22k_ft_in1k fb_in22k"),
    ("convnext_xlarge", "imagenet", 1.0, 384, "apache-2.0", "fb_in22k_ft_in1k_384"),
    (
        "convnext_xxlarge",
        "clip",
        1.0,
        256,
        "apache-2.0",
        "clip_laion2b_soup_ft_in1k clip_laion2b_soup_ft_in12k clip_laion2b_soup clip_laion2b_rewind",
    ),
    ("convnextv2_atto", "imagenet", 0.875, 224, "cc-by-nc-4.0", "fcmae_ft_in1k fcmae"),
    ("convnextv2_base", "imagenet", 0.875, 224, "cc-by-nc-4.0", "fcmae_ft_in22k_in1k fcmae_ft_in1k fcmae"),
    ("convnextv2_base", "imagenet", 1.0, 384, "cc-by-nc-4.0", "fcmae_ft_in22k_in1k_384"),
    ("convnextv2_femto", "imagenet", 0.875, 224, "cc-by-nc-4.0", "fcmae_ft_in1k fcmae"),
    ("convnextv2_huge", "imagenet", 1.0, 384, "cc-by-nc-4.0", "fcmae_ft_in22k_in1k_384"),
    ("convnextv2_huge", "imagenet", 1.0, 512, "cc-by-nc-4.0", "fcmae_ft_in22k_in1k_512"),
    ("convnextv2_huge", "imagenet", 0.875, 224, "cc-by-nc-4.0", "fcmae_ft_in1k fcmae"),
    ("convnextv2_large", "imagenet", 0.875, 224, "cc-by-nc-4.0", "fcmae_ft_in22k_in1k fcmae_ft_in1k fcmae"),
    ("convnextv2_large", "imagenet", 1.0, 384, "cc-by-nc-4.0", "fcmae_ft_in22k_in1k_384"),
    ("convnextv2_nano", "imagenet", 0.875, 224, "cc-by-nc-4.0", "fcmae_ft_in22k_in1k fcmae_ft_in1k fcmae"),
    ("convnextv2_nano", "imagenet", 1.0, 384, "cc-by-nc-4.0", "fcmae_ft_in22k_in1k_384"),
    ("convnextv2_pico", "imagenet", 0.875, 224, "cc-by-nc-4.0", "fcmae_ft_in1k fcmae"),
    ("convnextv2_tiny", "imagenet", 0.875, 224, "cc-by-nc-4.0", "fcmae_ft_in22k_in1k fcmae_ft_in1k fcmae"),
    ("convnextv2_tiny", "imagenet", 1.0, 384, "cc-by-nc-4.0", "fcmae_ft_in22k_in1k_384"),
    ("swin_base_patch4_window12_384", "imagenet", 1.0, 384, "mit", "ms_in22k_ft_in1k ms_in1k ms_in22k"),
    ("swin_base_patch4_window7_224", "imagenet", 0.9, 224, "mit", "ms_in22k_ft_in1k ms_in1k ms_in22k"),
    ("swin_large_patch4_window12_384", "imagenet", 1.0, 384, "mit", "ms_in22k_ft_in1k ms_in22k"),
    ("swin_large_patch4_window7_224", "imagenet", 0.9, 224, "mit", "ms_in22k_ft_in1k ms_in22k"),
    ("swin_small_patch4_window7_224", "imagenet", 0.9, 224, "mit", "ms_in22k_ft_in1k ms_in1k ms_in22k"),
    ("swin_tiny_patch4_window7_224", "imagenet", 0.9, 224, "mit", "ms_in1k ms_in22k_ft_in1k ms_in22k"),
    ("tf_efficientnet_lite0", "half", 0.875, 224, "apache-2.0", "in1k"),
    ("tf_efficientnet_lite1", "half", 0.882, 240, "apache-2.0", "in1k"),
    ("tf_efficientnet_lite2", "half", 0.89, 260, "apache-2.0", "in1k"),
    ("tf_efficientnet_lite3", "half", 0.904, 300, "apache-2.0", "in1k"),
    ("tf_efficientnet_lite4", "half", 0.92, 380, "apache-2.0", "in1k"),
    ("test_convnext", "half", 0.95, 160, "apache-2.0", "r160_in1k"),
    ("test_convnext2", "half", 0.95, 160, "apache-2.0", "r160_in1k"),
    ("test_convnext3", "half", 0.95, 160, "apache-2.0", "r160_in1k"),
    ("test_vit", "half", 0.95, 160, "apache-2.0", "r160_in1k"),
    ("test_vit2", "half", 0.95, 160, "apache-2.0", "r160_in1k"),
    ("test_vit3", "half", 0.95, 160, "apache-2.0", "r160_in1k"),
    ("vit_base_patch14_dinov2", "imagenet", 1.0, 518, "apache-2.0", "lvd142m"),
    ("vit_base_patch14_reg4_dinov2", "imagenet", 1.0, 518, "apache-2.0", "lvd142m"),
    (
        "vit_base_patch16_224",
        "half",
        0.9,
        224,
        "apache-2.0",
        "augreg2_in21k_ft_in1k augreg_in21k_ft_in1k orig_in21k_ft_in1k augreg_in1k orig_in21k augreg_in21k sam_in1k",
    ),
    ("vit_base_patch16_224", "clip", 1.0, 224, "", "bamboo"),
    ("vit_base_patch16_224", "imagenet", 0.9, 224, "apache-2.0", "dino"),
    ("vit_base_patch16_224", "imagenet", 0.9, 224, "cc-by-nc-4.0", "mae"),
    ("vit_base_patch16_384", "half", 1.0, 384, "apache-2.0", "augreg_in21k_ft_in1k orig_in21k_ft_in1k augreg_in1k"),
    ("vit_base_patch16_clip_224", "clip", 0.95, 224, "apache-2.0", "laion2b_ft_in12k_in1k openai_ft_in12k_in1k"),
    ("vit_base_patch16_clip_224", "clip", 1.0, 224, "apache-2.0", "laion2b_ft_in1k laion2b datacompxl"),
    (
        "vit_base_patch16_clip_224",
        "clip",
        0.9,
        224,
        "apache-2.0",
        "openai_ft_in1k laion2b_ft_in12k openai_ft_in12k openai",
    ),
    ("vit_base_patch16_clip_224", "clip", 1.0, 224, "mit", "laion400m_e32"),
    ("vit_base_patch16_clip_224", "clip", 1.0, 224, "apple-ascl", "dfn2b"),
    ("vit_base_patch16_clip_224", "clip", 1.0, 224, "cc-by-nc-4.0", "metaclip_2pt5b metaclip_400m"),
    (
        "vit_base_patch16_clip_384",
        "clip",
        1.0,
        384,
        "apache-2.0",
        "laion2b_ft_in12k_in1k laion2b_ft_in1k openai_ft_in1k",
    ),
    ("vit_base_patch16_clip_384", "clip", 0.95, 384, "apache-2.0", "openai_ft_in12k_in1k"),
    ("vit_base_patch16_clip_quickgelu_224", "clip", 1.0, 224, "cc-by-nc-4.0", "metaclip_2pt5b metaclip_400m"),
    ("vit_base_patch16_clip_quickgelu_224", "clip", 0.9, 224, "apache-2.0", "openai"),
    ("vit_base_patch16_siglip_224", "half", 0.9, 224, "apache-2.0", "v2_webli webli"),
    ("vit_base_patch16_siglip_256", "half", 0.9, 256, "apache-2.0", "v2_webli webli webli_i18n"),
    ("vit_base_patch16_siglip_384", "half", 0.9, 384, "apache-2.0", "v2_webli webli"),
    ("vit_base_patch16_siglip_512", "half", 0.9, 512, "apache-2.0", "v2_webli webli"),
    ("vit_base_patch16_siglip_gap_224", "half", 0.9, 224, "apache-2.0", "v2_webli webli"),
    ("vit_base_patch16_siglip_gap_256", "half", 0.9, 256, "apache-2.0", "v2_webli webli webli_i18n"),
    ("vit_base_patch16_siglip_gap_384", "half", 0.9, 384, "apache-2.0", "v2_webli webli"),
    ("vit_base_patch16_siglip_gap_512", "half", 0.9, 512, "apache-2.0", "v2_webli webli"),
    (
        "vit_base_patch32_224",
        "half",
        0.9,
        224,
        "apache-2.0",
        "augreg_in21k_ft_in1k augreg_in1k orig_in21k augreg_in21k sam_in1k",
    ),
    ("vit_base_patch32_384", "half", 1.0, 384, "apache-2.0", "augreg_in21k_ft_in1k augreg_in1k"),
    (
        "vit_base_patch32_clip_224",
        "clip",
        0.9,
        224,
        "apache-2.0",
        "laion2b_ft_in12k_in1k laion2b_ft_in1k openai_ft_in1k laion2b openai",
    ),
    ("vit_base_patch32_clip_224", "clip", 0.9, 224, "mit", "laion400m_e32"),
    ("vit_base_patch32_clip_224", "clip", 1.0, 224, "apache-2.0", "datacompxl"),
    ("vit_base_patch32_clip_224", "clip", 1.0, 224, "cc-by-nc-4.0", "metaclip_2pt5b metaclip_400m"),
    ("vit_base_patch32_clip_256", "clip", 1.0, 256, "apache-2.0", "datacompxl"),
    ("vit_base_patch32_clip_384", "clip", 1.0, 384, "apache-2.0", "laion2b_ft_in12k_in1k"),
    ("vit_base_patch32_clip_384", "clip", 0.95, 384, "apache-2.0", "openai_ft_in12k_in1k"),
    ("vit_base_patch32_clip_448", "clip", 1.0, 448, "apache-2.0", "laion2b_ft_in12k_in1k"),
    ("vit_base_patch32_clip_quickgelu_224", "clip", 0.9, 224, "mit", "laion400m_e32"),
    ("vit_base_patch32_clip_quickgelu_224", "clip", 1.0, 224, "cc-by-nc-4.0", "metaclip_2pt5b metaclip_400m"),
    ("vit_base_patch32_clip_quickgelu_224", "clip", 0.9, 224, "apache-2.0", "openai"),
    ("vit_base_patch32_siglip_256", "half", 0.9, 256, "apache-2.0", "v2_webli"),
    ("vit_base_patch32_siglip_gap_256", "half", 0.9, 256, "apache-2.0", "v2_webli"),
    ("vit_base_patch8_224", "half", 0.9, 224, "apache-2.0", "augreg2_in21k_ft_in1k augreg_in21k_ft_in1k augreg_in21k"),
    ("vit_base_patch8_224", "imagenet", 0.9, 224, "apache-2.0", "dino"),
    ("vit_betwixt_patch16_reg1_gap_256", "half", 0.95, 256, "apache-2.0", "sbb_in1k"),
    (
        "vit_betwixt_patch16_reg4_gap_256",
        "half",
        0.95,
        256,
        "apache-2.0",
        "sbb2_e200_in12k_ft_in1k sbb_in12k_ft_in1k sbb_in1k sbb2_e200_in12k sbb_in12k",
    ),
    ("vit_betwixt_patch16_reg4_gap_384", "half", 1.0, 384, "apache-2.0", "sbb2_e200_in12k_ft_in1k"),
    ("vit_betwixt_patch32_clip_224", "clip", 0.9, 224, "mit", "tinyclip_laion400m"),
    ("vit_giant_patch14_clip_224", "clip", 1.0, 224, "apache-2.0", "laion2b"),
    ("vit_giantopt_patch16_siglip_256", "half", 0.9, 256, "apache-2.0", "v2_webli"),
    ("vit_giantopt_patch16_siglip_384", "half", 0.9, 384, "apache-2.0", "v2_webli"),
    ("vit_giantopt_patch16_siglip_gap_256", "half", 0.9, 256, "apache-2.0", "v2_webli"),
    ("vit_giantopt_patch16_siglip_gap_384", "half", 0.9, 384, "apache-2.0", "v2_webli"),
    ("vit_gigantic_patch14_clip_224", "clip", 1.0, 224, "apache-2.0", "laion2b"),
    ("vit_gigantic_patch14_clip_224", "clip", 1.0, 224, "cc-by-nc-4.0", "metaclip2_worldwide metaclip_2pt5b"),
    ("vit_gigantic_patch14_clip_378", "clip", 1.0, 378, "cc-by-nc-4.0", "metaclip2_worldwide"),
    ("vit_gigantic_patch14_clip_quickgelu_224", "clip", 1.0, 224, "cc-by-nc-4.0", "metaclip_2pt5b"),
    ("vit_huge_patch14_224", "half", 0.9, 224, "apache-2.0", "orig_in21k"),
    ("vit_huge_patch14_224", "imagenet", 0.9, 224, "cc-by-nc-4.0", "mae"),
    (
        "vit_huge_patch14_clip_224",
        "clip",
        1.0,
        224,
        "apache-2.0",
        "laion2b_ft_in12k_in1k laion2b_ft_in1k laion2b_ft_in12k laion2b",
    ),
    ("vit_huge_patch14_clip_224", "clip", 1.0, 224, "apple-ascl", "dfn5b"),
    (
        "vit_huge_patch14_clip_224",
        "clip",
        1.0,
        224,
        "cc-by-nc-4.0",
        "metaclip2_worldwide metaclip_2pt5b metaclip_altogether",
    ),
    ("vit_huge_patch14_clip_336", "clip", 1.0, 336, "apache-2.0", "laion2b_ft_in12k_in1k"),
    ("vit_huge_patch14_clip_378", "clip", 1.0, 378, "apple-ascl", "dfn5b"),
    ("vit_huge_patch14_clip_378", "clip", 1.0, 378, "cc-by-nc-4.0", "metaclip2_worldwide"),
    ("vit_huge_patch14_clip_quickgelu_224", "clip", 1.0, 224, "apple-ascl", "dfn5b"),
    ("vit_huge_patch14_clip_quickgelu_224", "clip", 1.0, 224, "cc-by-nc-4.0", "metaclip2_worldwide metaclip_2pt5b"),
    ("vit_huge_patch14_clip_quickgelu_378", "clip", 1.0, 378, "apple-ascl", "dfn5b"),
    (
        "vit_large_patch14_clip_224",
        "half",
        1.0,
        224,
        "apache-2.0",
        "laion2b_ft_in12k_in1k laion2b_ft_in1k laion2b_ft_in12k laion2b",
    ),
    (
        "vit_large_patch14_clip_224",
        "clip",
        1.0,
        224,
        "apache-2.0",
        "openai_ft_in12k_in1k openai_ft_in1k openai_ft_in12k datacompxl openai",
    ),
    ("vit_large_patch14_clip_224", "clip", 1.0, 224, "mit", "laion400m_e32"),
    ("vit_large_patch14_clip_224", "clip", 1.0, 224, "apple-ascl", "dfn2b_s39b dfn2b"),
    ("vit_large_patch14_clip_224", "clip", 1.0, 224, "cc-by-nc-4.0", "metaclip_2pt5b metaclip_400m"),
    ("vit_large_patch14_clip_224", "clip", 1.0, 224, "apple-amlr", "apple_mclip2_dfndr2b"),
    ("vit_large_patch14_clip_336", "half", 1.0, 336, "apache-2.0", "laion2b_ft_in12k_in1k laion2b_ft_in1k"),
    ("vit_large_patch14_clip_336", "clip", 1.0, 336, "apache-2.0", "openai_ft_in12k_in1k openai"),
    ("vit_large_patch14_clip_quickgelu_224", "clip", 1.0, 224, "apple-ascl", "dfn2b"),
    ("vit_large_patch14_clip_quickgelu_224", "clip", 1.0, 224, "cc-by-nc-4.0", "metaclip_2pt5b metaclip_400m"),
    ("vit_large_patch14_clip_quickgelu_224", "clip", 1.0, 224, "apache-2.0", "openai"),
    ("vit_large_patch14_clip_quickgelu_336", "clip", 1.0, 336, "apache-2.0", "openai"),
    ("vit_large_patch14_dinov2", "imagenet", 1.0, 518, "apache-2.0", "lvd142m"),
    ("vit_large_patch14_reg4_dinov2", "imagenet", 1.0, 518, "apache-2.0", "lvd142m"),
    ("vit_large_patch16_224", "half", 0.9, 224, "apache-2.0", "augreg_in21k_ft_in1k orig_in21k augreg_in21k"),
    ("vit_large_patch16_224", "imagenet", 0.9, 224, "cc-by-nc-4.0", "mae"),
    ("vit_large_patch16_384", "half", 1.0, 384, "apache-2.0", "augreg_in21k_ft_in1k"),
    ("vit_large_patch16_siglip_256", "half", 0.9, 256, "apache-2.0", "v2_webli webli"),
    ("vit_large_patch16_siglip_384", "half", 0.9, 384, "apache-2.0", "v2_webli webli"),
    ("vit_large_patch16_siglip_512", "half", 0.9, 512, "apache-2.0", "v2_webli"),
    ("vit_large_patch16_siglip_gap_256", "half", 0.9, 256, "apache-2.0", "v2_webli webli"),
    ("vit_large_patch16_siglip_gap_384", "half", 0.9, 384, "apache-2.0", "v2_webli webli"),
    ("vit_large_patch16_siglip_gap_512", "half", 0.9, 512, "apache-2.0", "v2_webli"),
    ("vit_large_patch32_224", "half", 0.9, 224, "apache-2.0", "orig_in21k"),
    ("vit_large_patch32_384", "half", 1.0, 384, "apache-2.0", "orig_in21k_ft_in1k"),
    ("vit_little_patch16_reg1_gap_256", "half", 0.95, 256, "apache-2.0", "sbb_in12k_ft_in1k sbb_in12k"),
    ("vit_little_patch16_reg4_gap_256", "half", 0.95, 256, "apache-2.0", "sbb_in1k"),
    ("vit_medium_patch16_clip_224", "clip", 0.9, 224, "mit", "tinyclip_yfcc15m"),
    ("vit_medium_patch16_gap_240", "half", 0.95, 240, "apache-2.0", "sw_in12k"),
    ("vit_medium_patch16_gap_256", "half", 0.95, 256, "apache-2.0", "sw_in12k_ft_in1k"),
    ("vit_medium_patch16_gap_384", "half", 0.95, 384, "apache-2.0", "sw_in12k_ft_in1k"),
    ("vit_medium_patch16_reg1_gap_256", "half", 0.95, 256, "apache-2.0", "sbb_in1k"),
    ("vit_medium_patch16_reg4_gap_256", "half", 0.95, 256, "apache-2.0", "sbb_in12k_ft_in1k sbb_in1k sbb_in12k"),
    ("vit_medium_patch32_clip_224", "clip", 0.9, 224, "mit", "tinyclip_laion400m"),
    (
        "vit_mediumd_patch16_reg4_gap_256",
        "half",
        0.95,
        256,
        "apache-2.0",
        "sbb2_e200_in12k_ft_in1k sbb_in12k_ft_in1k sbb2_e200_in12k sbb_in12k",
    ),
    ("vit_mediumd_patch16_reg4_gap_384", "half", 1.0, 384, "apache-2.0", "sbb2_e200_in12k_ft_in1k"),
    ("vit_small_patch14_dinov2", "imagenet", 1.0, 518, "apache-2.0", "lvd142m"),
    ("vit_small_patch14_reg4_dinov2", "imagenet", 1.0, 518, "apache-2.0", "lvd142m"),
    ("vit_small_patch16_224", "half", 0.9, 224, "apache-2.0", "augreg_in21k_ft_in1k augreg_in1k augreg_in21k"),
    ("vit_small_patch16_224", "imagenet", 0.9, 224, "apache-2.0", "dino"),
    ("vit_small_patch16_384", "half", 1.0, 384, "apache-2.0", "augreg_in21k_ft_in1k augreg_in1k"),
    ("vit_small_patch32_224", "half", 0.9, 224, "apache-2.0", "augreg_in21k_ft_in1k augreg_in21k"),
    ("vit_small_patch32_384", "half", 1.0, 384, "apache-2.0", "augreg_in21k_ft_in1k"),
    ("vit_small_patch8_224", "imagenet", 0.9, 224, "apache-2.0", "dino"),
    ("vit_so400m_patch14_siglip_224", "half", 0.9, 224, "apache-2.0", "v2_webli webli"),
    ("vit_so400m_patch14_siglip_378", "half", 0.9, 378, "apache-2.0", "v2_webli webli"),
    ("vit_so400m_patch14_siglip_378", "half", 1.0, 378, "apache-2.0", "webli_ft_in1k"),
    ("vit_so400m_patch14_siglip_384", "half", 0.9, 384, "apache-2.0", "webli"),
    (
        "vit_so400m_patch14_siglip_gap_224",
        "half",
        0.9,
        224,
        "apache-2.0",
        "v2_webli webli pali_mix pali_pt pali2_3b_pt pali2_10b_pt",
    ),
    ("vit_so400m_patch14_siglip_gap_378", "half", 0.9, 378, "apache-2.0", "v2_webli"),
    ("vit_so400m_patch14_siglip_gap_378", "half", 1.0, 378, "apache-2.0", "webli webli_ft_in1k"),
    ("vit_so400m_patch14_siglip_gap_384", "half", 1.0, 384, "apache-2.0", "webli"),
    (
        "vit_so400m_patch14_siglip_gap_448",
        "half",
        1.0,
        448,
        "apache-2.0",
        "pali_mix pali_pt pali_refcoco_seg pali_ocrvqa pali2_3b_pt pali2_10b_pt pali2_3b_docci pali2_10b_docci",
    ),
    (
        "vit_so400m_patch14_siglip_gap_896",
        "half",
        1.0,
        896,
        "apache-2.0",
        "pali_pt pali_refcoco_seg pali_ocrvqa pali2_3b_pt pali2_10b_pt",
    ),
    ("vit_so400m_patch16_siglip_256", "half", 0.9, 256, "apache-2.0", "v2_webli webli_i18n"),
    ("vit_so400m_patch16_siglip_384", "half", 0.9, 384, "apache-2.0", "v2_webli"),
    ("vit_so400m_patch16_siglip_512", "half", 0.9, 512, "apache-2.0", "v2_webli"),
    ("vit_so400m_patch16_siglip_gap_256", "half", 0.9, 256, "apache-2.0", "v2_webli webli_i18n"),
    ("vit_so400m_patch16_siglip_gap_384", "half", 0.9, 384, "apache-2.0", "v2_webli"),
    ("vit_so400m_patch16_siglip_gap_512", "half", 0.9, 512, "apache-2.0", "v2_webli"),
    ("vit_tiny_patch16_224", "half", 0.9, 224, "apache-2.0", "augreg_in21k_ft_in1k augreg_in21k"),
    ("vit_tiny_patch16_384", "half", 1.0, 384, "apache-2.0", "augreg_in21k_ft_in1k"),
    ("vit_wee_patch16_reg1_gap_256", "half", 0.95, 256, "apache-2.0", "sbb_in1k"),
    ("vit_xsmall_patch16_clip_224", "clip", 0.9, 224, "mit", "tinyclip_yfcc15m"),
)

# timm resizes bilinearly for these, bicubically for all others.
BILINEAR = ("tf_efficientnet_lite3", "tf_efficientnet_lite4")

# Evaluated on pictures squashed to a square, not on centre crops.
SQUASHED = frozenset(
    """
    convnext_base.fb_in22k_ft_in1k_384 convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384
    convnext_large.fb_in22k_ft_in1k_384 convnext_large_mlp.clip_laion2b_soup_ft_in12k_in1k_384
    convnext_large_mlp.clip_laion2b_augreg_ft_in1k_384 convnext_large_mlp.clip_laion2b_augreg_ft_in12k_384
    convnext_large_mlp.clip_laion2b_soup_ft_in12k_384 convnext_small.in12k_ft_in1k_384
    convnext_small.fb_in22k_ft_in1k_384 convnext_tiny.in12k_ft_in1k_384 convnext_tiny.fb_in22k_ft_in1k_384
    convnext_xlarge.fb_in22k_ft_in1k_384 convnextv2_base.fcmae_ft_in22k_in1k_384
    convnextv2_huge.fcmae_ft_in22k_in1k_384 convnextv2_huge.fcmae_ft_in22k_in1k_512
    convnextv2_large.fcmae_ft_in22k_in1k_384 convnextv2_nano.fcmae_ft_in22k_in1k_384
    convnextv2_tiny.fcmae_ft_in22k_in1k_384 vit_base_patch16_clip_384.laion2b_ft_in12k_in1k
    vit_base_patch16_clip_384.laion2b_ft_in1k vit_base_patch16_clip_384.openai_ft_in1k
    vit_base_patch16_clip_384.openai_ft_in12k_in1k vit_base_patch32_clip_384.openai_ft_in12k_in1k
    vit_gigantic_patch14_clip_378.metaclip2_worldwide vit_huge_patch14_clip_336.laion2b_ft_in12k_in1k
    vit_huge_patch14_clip_378.metaclip2_worldwide vit_large_patch14_clip_336.laion2b_ft_in12k_in1k
    vit_large_patch14_clip_336.laion2b_ft_in1k vit_large_patch14_clip_336.openai_ft_in12k_in1k
    vit_medium_patch16_gap_384.sw_in12k_ft_in1k vit_so400m_patch14_siglip_378.webli_ft_in1k
    vit_so400m_patch14_siglip_gap_378.webli_ft_in1k
""".split()
)


def architectures(prefix: str) -> list[str]:
    """Returns the names of the architectures with a prefix."""
    return list(dict.fromkeys(name for name, *_ in CHECKPOINTS if name.startswith(prefix)))


def default_tag(architecture: str) -> str:
    """Returns timm's default tag of an architecture, or "" if it publishes no weights."""
    return next((tags.split()[0] for name, *_, tags in CHECKPOINTS if name == architecture), "")


def metadata(architecture: str, tag: str) -> dict:
    """Returns the entries of config.json about pictures and licence; an unknown tag gets the default's, and no licence.

    Args:
      architecture: timm's name without tag.
      tag: tag of the weights.
    """
    rows = [row for row in CHECKPOINTS if row[0] == architecture]
    row = next((row for row in rows if tag in row[-1].split()), None)
    _, statistics, crop, side, licence, _ = row or (rows or [("", "imagenet", 0.875, None, "", "")])[0]
    mean, std = STATISTICS[statistics]
    return {
        "mean": mean,
        "std": std,
        "interpolation": "bilinear" if architecture in BILINEAR else "bicubic",
        "crop_pct": crop,
        "crop_mode": "squash" if f"{architecture}.{tag}" in SQUASHED else "center",
        "input_size": side and (3, side, side),
        "license": licence if row else "",
    }
